#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "commands.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "sinkscope/session.h"
#include "terminal.h"

namespace {

constexpr int kFailed = 1, kWrongUse = 2;

[[noreturn]] void leave_at_once(int code) {
  sinkscope::remove_unfinished_files();
  _exit(code);
}

// Only what is safe in a signal handler.
void print_raw(const char* text) { [[maybe_unused]] const auto n = ::write(STDERR_FILENO, text, std::strlen(text)); }

void on_interrupt(int signal) {
  if (isatty(STDERR_FILENO)) print_raw("\r\x1b[K");
  leave_at_once(128 + signal);
}

void on_crash(int) {
  print_raw("sinkscope: llama.cpp crashed on this model; the file is damaged or of a kind that it cannot run, give another one\n");
  leave_at_once(kFailed);
}

void on_give_up(const char* sentence) {
  print_raw("sinkscope: ");
  print_raw(sentence);
  print_raw("; the model file is damaged or of a kind that it cannot run, give another one\n");
  leave_at_once(kFailed);
}

void install_handlers() {
  for (const int s : {SIGINT, SIGTERM, SIGHUP}) std::signal(s, on_interrupt);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  for (const int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(s, on_crash);
#endif
  sinkscope::on_fatal(on_give_up);
}

int fail(const std::string& sentence, int code) {
  fmt::print(stderr, "sinkscope: {}\n", sinkscope::cli::printable(sentence));
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  install_handlers();
  CLI::App app("Attention sinks of language models: measure, explain, use, remove, guard.", "sinkscope");
  app.require_subcommand(1);
  app.set_version_flag("--version", SINKSCOPE_VERSION);
  std::function<void()> chosen;
  sinkscope::cli::add_profile_command(app, chosen);

  try {
    app.parse(argc, argv);
    chosen();
    if (std::fflush(stdout) != 0) return fail("cannot write to standard output (is the disk full?); give it room", kFailed);
    return 0;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return fail(std::string(e.what()) + "; see sinkscope --help and sinkscope profile --help", kWrongUse);
  } catch (const sinkscope::UsageError& e) {
    return fail(e.what(), kWrongUse);
  } catch (const sinkscope::InputError& e) {
    return fail(e.what(), kFailed);
  } catch (const std::bad_alloc&) {
    return fail("out of memory; give shorter prompts, a smaller --batch or a smaller --kv-type", kFailed);
  } catch (const std::exception& e) {
    return fail(fmt::format("internal error: {}; please report it with the command line", e.what()), kFailed);
  }
}
