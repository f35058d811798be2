#include <cstdlib>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>

#include "commands.h"
#include "process.h"
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

constexpr const char* kDamaged = "the model file is damaged or of a kind that it cannot run, give another one\n";

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // sanitizers tell of crashes themselves
#define SINKSCOPE_TELLS_OF_CRASHES
void on_crash(int) {
  print_raw("sinkscope: llama.cpp crashed; ");
  print_raw(kDamaged);
  leave_at_once(kFailed);
}
#endif

void on_give_up(const char* sentence) {
  print_raw("sinkscope: ");
  print_raw(sentence);
  print_raw("; ");
  print_raw(kDamaged);
  leave_at_once(kFailed);
}

void install_handlers() {
  for (const int s : {SIGINT, SIGTERM, SIGHUP}) handle(s, on_interrupt);
  for (const int s : {SIGPIPE, SIGXFSZ}) std::signal(s, SIG_IGN);  // the failing write says it
#ifdef SINKSCOPE_TELLS_OF_CRASHES
  static char stack[64 << 10];  // for a crash by a full stack
  const stack_t own = {.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof stack};
  sigaltstack(&own, nullptr);
  for (const int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) handle(s, on_crash, SA_ONSTACK);
#endif
  setenv("GGML_NO_BACKTRACE", "1", 1);  // ggml would start a debugger
  sinkscope::on_fatal(on_give_up);
}

// Files must not get the numbers of closed standard streams: what is printed would go into them.
void open_standard_streams() {
  int file;
  do file = open("/dev/null", O_RDWR);
  while (file >= 0 && file <= STDERR_FILENO);
  if (file >= 0) close(file);
}

int fail(const std::string& sentence, int code) {
  sinkscope::cli::print_error_line(sentence);
  return code;
}

// What CLI11 says of a command, or of the program, in our words.
std::string sentence(const CLI::ParseError& e, const CLI::App* command) {
  const std::string what = e.what(), help = fmt::format("; see sinkscope {}--help", command ? command->get_name() + " " : "");
  if (dynamic_cast<const CLI::ConversionError*>(&e)) {
    constexpr std::string_view kFront = "Could not convert: ";
    return (what.starts_with(kFront) ? what.substr(kFront.size()) : what) + " is no number that this option takes" + help;
  }
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&e)) {
    const size_t name = what.find(": At Most 1 required");
    if (name != std::string::npos) return what.substr(0, name) + " is given more than once; give it once" + help;
  }
  return what + help;
}

std::string commands(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) names += (names.empty() ? "" : ", ") + command->get_name();
  return names;
}

// Large blocks go back to the system when they are freed: by itself glibc keeps more of them, the larger they were.
void give_memory_back() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
#endif
}

// Of a pipe whose reader has gone.
bool nobody_reads() {
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  return poll(&out, 1, 0) > 0 && (out.revents & POLLERR);
}

int flushed(int code) {
  if (std::cout.flush() && std::fflush(stdout) == 0) return code;
  if (nobody_reads()) return fail("nobody reads standard output any more, so not all was printed; read to the end, or write to a file", kFailed);
  return fail("cannot write to standard output (is the disk full?); give it room", kFailed);
}

}  // namespace

int main(int argc, char** argv) {
  spin_less(argv);
  give_memory_back();
  open_standard_streams();
  install_handlers();
  CLI::App app("Attention sinks of language models.", "sinkscope");
  app.require_subcommand(1);
  app.set_version_flag("--version", SINKSCOPE_VERSION);
  std::function<void()> chosen;
  sinkscope::cli::add_profile_command(app, chosen);
  sinkscope::cli::add_explain_command(app, chosen);
  sinkscope::cli::add_emergence_command(app, chosen);
  sinkscope::cli::add_ablate_command(app, chosen);
  sinkscope::cli::add_denoise_command(app, chosen);
  sinkscope::cli::add_calibrate_command(app, chosen);
  sinkscope::cli::add_eval_command(app, chosen);
  sinkscope::cli::add_stream_command(app, chosen);
  sinkscope::cli::add_view_command(app, chosen);

  const auto command = [&]() -> const CLI::App* { return app.get_subcommands().empty() ? nullptr : app.get_subcommands().front(); };
  try {
    app.parse(argc, argv);
    chosen();
    return flushed(0);
  } catch (const CLI::Success& e) {
    return flushed(app.exit(e));
  } catch (const CLI::RequiredError& e) {
    if (!command()) return fail(argc > 1 ? fmt::format("'{}' is no command of sinkscope; see sinkscope --help", argv[1]) : fmt::format("no command is given; use one of {}", commands(app)), kWrongUse);
    return fail(sentence(e, command()), kWrongUse);
  } catch (const CLI::ParseError& e) {
    return fail(sentence(e, command()), kWrongUse);
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
