#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <unistd.h>

#include "add_options.h"
#include "commands.h"
#include "sinkscope/stream.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

// The first Ctrl-C or SIGTERM ends the stream, a second one the program.
std::atomic<bool> interrupted = false;
void on_interrupt(int signal) {
  if (!interrupted.exchange(true)) return;
  StatusLine::give_back();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::string status(const StreamState& s) {
  const std::string reading = s.n_unread > 0 ? counted(s.n_unread, "token") + " to read, " : "";
  return reading + fmt::format("position {}, {:.0f} rows, {:.1f} MiB, {:.1f} tokens/s", s.position, s.rows, static_cast<double>(s.kv_bytes) / (1 << 20),
                     s.tokens_per_second);
}

void run(const StreamOptions& options) {
  struct sigaction stop {};
  stop.sa_handler = on_interrupt;
  stop.sa_flags = SA_NODEFER;
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &stop, nullptr);
  std::optional<StatusLine> status_line(std::in_place);
  int64_t told = 0;
  constexpr int64_t kPause = 16;  // tokens between two pictures
  StreamEvents events;
  events.reading = [&](const StreamState& s) {
    status_line->show(status(s));
    return !interrupted;
  };
  events.text = [&](std::string_view text, const StreamState& s) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    if (told == 0 || s.n_generated - told >= kPause) {
      told = s.n_generated;
      status_line->show(status(s));
    }
    return !interrupted && !std::ferror(stdout);
  };
  events.message = [&]() -> std::optional<std::string> {
    if (isatty(STDIN_FILENO)) std::fputs("> ", stdout), std::fflush(stdout);
    std::string line;
    if (interrupted || !std::getline(std::cin, line)) return std::nullopt;
    return line;
  };
  events.note = [](const std::string& sentence) { print_error_line("note: " + sentence); };
  const StreamState end = stream(options, events);
  std::fputs("\n", stdout);
  status_line.reset();
  print_error_line(fmt::format("note: {}; {}", counted(end.n_generated, "token"), status(end)));
}

}  // namespace

void add_stream_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<StreamOptions>();
  CLI::App* sub = app.add_subcommand("stream", "Generate without end at constant memory");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->text, "text file to go on from; - is standard input");
  add_options(*sub, stream_options(), *options);
  for (const char* file : {"--save", "--load"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, sub, &chosen] {
    chosen = [options, sub] {
      one_of(*sub, "--budget", "--kv-budget");
      run(*options);
    };
  });
}

}  // namespace sinkscope::cli
