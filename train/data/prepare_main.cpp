// What `sinkscope-train prepare` starts: a program of its own, since sentencepiece and libtorch cannot be in one process.
#include <csignal>
#include <cstdio>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "data/prepare.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace {

int fail(const std::string& sentence, int code) {
  std::fputs(fmt::format("{}sinkscope-train: {}\n", isatty(STDERR_FILENO) ? "\r\x1b[K" : "", sentence).c_str(), stderr);
  return code;
}

void on_interrupt(int signal) {
  sinkscope::remove_unfinished_files();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int kFailed = 1, kWrongUse = 2;
  for (const int s : {SIGINT, SIGTERM}) std::signal(s, on_interrupt);
  sinkscope::train::PrepareOptions options;
  CLI::App app("Makes a tokenizer and a token file of texts.", "sinkscope-train prepare");
  app.add_option("TEXT", options.texts, "text files; a form feed stands between documents")->required();
  app.add_option("--out", options.folder, "folder to write")->required();
  app.add_option("--vocabulary", options.n_vocab, "tokens")->capture_default_str();
  app.add_option("--seed", options.seed, "of the order of documents")->capture_default_str();
  try {
    app.parse(argc, argv);
    const bool is_terminal = isatty(STDERR_FILENO) != 0;
    const auto done = prepare(options, [&](const std::string& what, int64_t n, int64_t all) {
      if (is_terminal) std::fputs(fmt::format("\r\x1b[K{} {:.0f} %", what, 100.0 * static_cast<double>(n) / static_cast<double>(all > 0 ? all : 1)).c_str(), stderr);
    });
    if (is_terminal) std::fputs("\r\x1b[K", stderr);
    std::fputs(fmt::format("{}: {} tokens of a vocabulary of {}, {} documents\n", options.folder, done.n_token, done.n_vocab, done.n_document).c_str(), stdout);
    return 0;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return fail(fmt::format("{}; see sinkscope-train prepare --help", e.what()), kWrongUse);
  } catch (const sinkscope::UsageError& e) {
    return fail(e.what(), kWrongUse);
  } catch (const sinkscope::InputError& e) {
    return fail(e.what(), kFailed);
  } catch (const std::exception& e) {
    return fail(fmt::format("internal error: {}; please report it with the command line", e.what()), kFailed);
  }
}
