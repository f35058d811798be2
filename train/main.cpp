// sinkscope-train: small models, made to see sinks emerge, and to switch them off.
#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include <malloc.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "data/prepare.h"
#include "evaluation/evaluation.h"
#include "io/places.h"
#include "process.h"
#include "sinkscope/error.h"
#include "sweep/sweep.h"
#include "testbed/bigram_backcopy.h"
#include "training/trainer.h"

namespace sinkscope::train {
namespace {

namespace fs = std::filesystem;

constexpr int kFailed = 1, kWrongUse = 2, kInterrupted = 130;
std::atomic<bool> interrupted = false;

// Where standard error is a terminal: one line that is written over. Elsewhere a line for each measurement.
class Status {
 public:
  void show(const State& s) {
    const bool is_terminal = isatty(STDERR_FILENO) != 0;
    if (!is_terminal && (!s.last || s.last->step != s.step)) return;
    std::fputs(fmt::format("{}step {} of {}  loss {:.3f}  {:.0f} tokens/s  {:.0f} GFLOP/s  sink rate {:.1f} %  attention to the first {:.3f} (uniform {:.3f})  {:.0f} s left{}",
                           is_terminal ? "\r\x1b[K" : "", s.step, s.n_step, s.last ? s.last->validation : s.loss, s.tokens_per_second, s.gflops, s.last ? s.last->sink_rate : 0,
                           s.last ? s.last->alpha : 0, s.last ? s.last->alpha_null : 0, s.seconds_left, is_terminal ? "" : "\n").c_str(), stderr);
    std::fflush(stderr);
    open_ = is_terminal;
  }
  ~Status() {
    if (open_) std::fputs("\r\x1b[K", stderr);
  }

 private:
  bool open_ = false;
};

void report(const Outcome& o, const std::string& folder) {
  const Measurement& m = o.curve.back();
  const int at = onset(o.curve);
  const std::string speed = o.n_trained == 0 ? "had finished before" : fmt::format("{:.0f} tokens/s, {:.0f} GFLOP/s (a plain product: {:.0f})", o.state.tokens_per_second, o.state.gflops, o.product_gflops);
  std::fputs(fmt::format("{}: {} steps, {:.1f}M tokens, loss {:.3f}, {}\n"
                         "first token: {:.1f} % of heads sink on it, attention {:.3f} (uniform {:.3f}), strongest head {:.3f}; {}\n", folder, m.step, static_cast<double>(m.tokens) / 1e6, m.validation,
                         speed, m.sink_rate, m.alpha, m.alpha_null, m.strongest,
                         at < 0 ? "no sink has set in" : fmt::format("sinks set in at {:.1f}M tokens", static_cast<double>(o.curve[at].tokens) / 1e6)).c_str(), stdout);
}

void print_sentence(const std::string& sentence) { std::fputs(fmt::format("sinkscope-train: {}\n", sentence).c_str(), stderr); }

void print_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) print_sentence("note: " + note);
}

std::string sentence_of(const std::exception& e) {
  const std::string_view what = e.what();
  if (dynamic_cast<const InputError*>(&e)) return e.what();
  if (dynamic_cast<const std::bad_alloc*>(&e) || what.find("DefaultCPUAllocator") != std::string::npos) return "memory does not suffice; use a smaller context, batch or model";
  return fmt::format("internal error: {}; please report it with the command line", what.substr(0, what.find('\n')));  // libtorch's errors go on for many lines, of which the first says what it is
}

int run_one(const RunConfig& config, const std::string& folder) {
  Status status;
  bool begun = false;
  const Outcome o = train(config, folder, [&](const State& s) {
    if (!std::exchange(begun, true)) print_notes(notes_of(config));
    status.show(s);
    return !interrupted;
  });
  if (!o.finished) {
    std::fputs("\n", stderr);
    print_sentence(fmt::format("interrupted at step {}; the same command goes on", o.state.step));
    return kInterrupted;
  }
  report(o, folder);
  return 0;
}

void print_summary(const std::string& folder) {
  std::ifstream summary(fs::path(folder) / "summary.md");
  std::fputs(std::string(std::istreambuf_iterator<char>(summary), {}).c_str(), stdout);
}

// What would stop a run is said before the first one starts.
void check_runs(const Sweep& sweep, const std::string& file) {
  std::map<std::string, std::unique_ptr<TokenFile>> opened;
  for (const SweepRun& run : sweep.runs) {
    std::unique_ptr<TokenFile>& data = opened[run.config.data.folder];
    if (!data) data = open_data(run.config, file, run.lines);
    check_data(run.config, *data, file, run.lines);
  }
}

// Threads that wait for each other's cores are slower than fewer.
void note_threads(const Sweep& sweep, int jobs) {
  const int n_core = threads_of({}), n_job = std::min(jobs, static_cast<int>(sweep.runs.size()));
  int n_thread = 0;
  for (const SweepRun& run : sweep.runs) n_thread = std::max(n_thread, threads_of(run.config.training));
  if (n_job > 1 && n_job * n_thread > n_core)
    print_sentence(fmt::format("note: {} runs at once with {} threads each are more than {} cores; use training.threads = {} or fewer --jobs", n_job, n_thread, n_core, std::max(1, n_core / n_job)));
}

// One process for each run, `jobs` of them at once: libtorch's state is the process's.
int run_sweep(const std::string& file, const std::string& folder, int jobs) {
  const Sweep sweep = read_sweep(file);
  check_runs(sweep, file);
  note_threads(sweep, jobs);
  io::make_folder(folder);
  std::map<pid_t, std::string> running;
  int code = 0;
  const auto wait_for_one = [&] {
    if (interrupted)  // by a signal that may have come to this process alone
      for (const auto& [process, name] : running) kill(process, SIGTERM);
    int status = 0;
    const pid_t ended = ::wait(&status);
    if (ended <= 0) return;  // a signal
    const int of_run = WIFEXITED(status) ? WEXITSTATUS(status) : kFailed;
    if (of_run != 0) code = of_run;
    std::fputs(fmt::format("{}: {}\n", running[ended], of_run == 0 ? "finished" : WIFEXITED(status) ? fmt::format("ended with code {}", of_run)
                                                                                                    : fmt::format("was ended by signal {}", WTERMSIG(status))).c_str(), stderr);
    running.erase(ended);
    try {
      write_summary(sweep, folder);
    } catch (const InputError& e) {  // the others go on
      print_sentence(fmt::format("note: {}", e.what()));
    }
  };
  for (const SweepRun& run : sweep.runs) {
    while (static_cast<int>(running.size()) >= jobs) wait_for_one();
    if (interrupted) break;
    const pid_t parent = getpid(), child = fork();
    if (child < 0) throw InputError("no further process can be started; use a smaller --jobs");
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);  // whoever goes on with the sweep must find nobody at work in its folders
      if (getppid() != parent) _exit(kFailed);
      int of_run = kFailed;
      try {
        of_run = run_one(run.config, (fs::path(folder) / run.name).string());
      } catch (const std::exception& e) {
        print_sentence(sentence_of(e));
      }
      std::fflush(stdout);
      _exit(of_run);
    }
    running[child] = run.name;
  }
  while (!running.empty()) wait_for_one();
  print_summary(folder);
  return interrupted ? kInterrupted : code;
}

// What keeps no state ends where it is.
void stop_at_once() {
  for (const int s : {SIGINT, SIGTERM})
    if (std::signal(s, SIG_DFL) == SIG_IGN) std::signal(s, SIG_IGN);
}

int summarise(const std::string& file, const std::string& folder) {
  stop_at_once();
  write_summary(read_sweep(file), folder);
  if (!fs::exists(fs::path(folder) / "summary.md")) throw InputError(fmt::format("'{}' holds no run of {}; give the folder that sweep --out named", folder, file));
  print_summary(folder);
  return 0;
}

// A table in markdown, a row for each run.
int evaluate(const std::vector<std::string>& folders, const EvaluationOptions& o) {
  stop_at_once();
  print_notes(notes_of_machine());
  std::string head = "| run | loss |", line = "\n|---|---|";
  const auto column = [&](const std::string& name) { head += fmt::format(" {} |", name), line += "---|"; };
  for (const std::string& type : o.types) column("rise, " + type);
  column(fmt::format("loss behind {} tokens", o.window));
  for (const int first : o.first) column(fmt::format("rise, last {} keys{}", o.window, first == 0 ? "" : fmt::format(" and first {}", first)));
  for (const int length : o.lengths)
    for (const char* what : {"heads that sink, %", "attention to the first token", "uniform", "strongest head", "through the gate"}) column(fmt::format("{} tokens: {}", length, what));
  std::fputs((head + line + "\n").c_str(), stdout);
  for (const std::string& folder : folders) {
    const Evaluation e = evaluate_run(folder, o);
    std::string row = fmt::format("| {} | {:.4f} |", fs::path(folder).lexically_normal().filename().string(), e.loss);
    for (const double loss : e.rounded) row += fmt::format(" {:.4f} |", loss - e.loss);
    row += fmt::format(" {:.4f} |", e.loss_behind);
    for (const double loss : e.streaming) row += fmt::format(" {:.4f} |", loss - e.loss_behind);
    for (const Measurement& m : e.sinks) row += fmt::format(" {:.1f} | {:.3f} | {:.3f} | {:.3f} | {:.3f} |", m.sink_rate, m.alpha, m.alpha_null, m.strongest, m.gated_alpha);
    std::fputs((row + "\n").c_str(), stdout);
    std::fflush(stdout);
  }
  return 0;
}

// The program beside this one; does not come back. argv: "prepare" and what follows it.
int start_prepare(char** argv) {
  const std::string program = (fs::canonical("/proc/self/exe").parent_path() / "sinkscope-train-prepare").string();
  execv(program.c_str(), argv);
  throw InputError(fmt::format("'{}' cannot be started; it belongs beside sinkscope-train", program));
}

int run_backcopy(BackcopyOptions options, const std::vector<std::string>& attentions) {
  const auto known = variants();
  for (const std::string& name : attentions)
    if (std::ranges::find(known, name, &Variant::name) == known.end()) throw UsageError(fmt::format("--attention '{}' is unknown; see sinkscope-train keys", name));
  print_notes(notes_of_machine());
  constexpr int kMeasurements = 12;
  for (const std::string& name : attentions) {
    options.attention = name;
    run_bigram_backcopy(options, kMeasurements, [&](const BackcopyMeasurement& m) {
      if (m.step == 0) std::fputs(fmt::format("{}\n   step  bigram loss  copy loss  | no trigger: on BOS  uniform   mass | trigger: on BOS  on the copied  | value of BOS  dormant\n", name).c_str(), stdout);
      std::fputs(fmt::format("{:7}  {:11.3f}  {:9.3f}  | {:18.3f}  {:7.3f}  {:5.3f} | {:15.3f}  {:13.3f}  | {:12.3f}  {:7.3f}\n", m.step, m.bigram_loss, m.copy_loss, m.sink, m.sink_null, m.mass, m.trigger_sink,
                             m.trigger_copy, m.value_ratio, m.added_ratio).c_str(), stdout);
      std::fflush(stdout);
    }, [] { return !interrupted; });
    if (interrupted) return kInterrupted;
  }
  return 0;
}

int list_keys() {
  for (const Key& k : keys()) std::fputs(fmt::format("{:<26} {}: {}{}; {}\n", fmt::format("{}.{}", k.section, k.name), default_of(k), k.what, k.read_with ? fmt::format(", with {}", k.read_with->what) : "", allowed(k)).c_str(), stdout);
  const int n_vocab = PrepareOptions().n_vocab;
  std::fputs(fmt::format("\npresets, with a vocabulary of {}\n", n_vocab).c_str(), stdout);
  for (const Preset& p : presets()) {
    RunConfig c;
    p.apply(c);
    const int64_t n = LanguageModel(c.model, n_vocab + c.model.diffusion, c.data.context, 1)->n_parameter();
    std::fputs(fmt::format("{:<26} {:.2f}M parameters, {} layers, width {}, heads {}; {}\n", p.name, static_cast<double>(n) / 1e6, c.model.n_layer, c.model.d_model, c.model.n_head, p.what).c_str(), stdout);
  }
  std::fputs("\nattention\n", stdout);
  for (const Variant& v : variants()) std::fputs(fmt::format("{:<26} {}{}{}\n", v.name, v.formula, *v.source ? "; " : "", v.source).c_str(), stdout);
  return 0;
}

int main_of(int argc, char** argv) {
  CLI::App app("Trains small language models, to see attention sinks emerge and to switch them off.", "sinkscope-train");
  app.require_subcommand(1);
  app.set_version_flag("--version", SINKSCOPE_VERSION);
  std::function<int()> chosen;

  CLI::App* prepare_command = app.add_subcommand("prepare", "Makes a tokenizer and a token file of texts");
  prepare_command->prefix_command();
  prepare_command->set_help_flag();
  prepare_command->callback([&] { chosen = [&] { return start_prepare(argv + 1); }; });

  std::string file, folder;
  std::vector<std::string> settings;
  CLI::App* run_command = app.add_subcommand("run", "Trains one model, or goes on where it stopped");
  run_command->add_option("FILE", file, "TOML file of a run")->required();
  run_command->add_option("--out", folder, "folder of the run")->required();
  run_command->add_option("--set", settings, "a key in place of the file's, as training.seed=2");
  run_command->callback([&] {
    chosen = [&] {
      const auto [config, lines] = read_run_config(file, settings);
      check_given({&config, 1}, file, lines);
      check_data(config, *open_data(config, file, lines), file, lines);
      return run_one(config, folder);
    };
  });

  int jobs = 1;
  CLI::App* sweep_command = app.add_subcommand("sweep", "Trains every combination of a grid, and makes one table and plots");
  sweep_command->add_option("FILE", file, "TOML file of a sweep")->required();
  sweep_command->add_option("--out", folder, "folder of the runs")->required();
  sweep_command->add_option("--jobs", jobs, "runs at once")->capture_default_str()->check(CLI::Range(1, 64));
  sweep_command->callback([&] { chosen = [&] { return run_sweep(file, folder, jobs); }; });

  CLI::App* summary_command = app.add_subcommand("summary", "Makes the table and the plots of a sweep again, of what its runs measured");
  summary_command->add_option("FILE", file, "TOML file of the sweep")->required();
  summary_command->add_option("--out", folder, "folder of the runs")->required();
  summary_command->callback([&] { chosen = [&] { return summarise(file, folder); }; });

  std::vector<std::string> folders;
  EvaluationOptions evaluation;
  CLI::App* evaluate_command = app.add_subcommand("evaluate", "What trained models lose by rounded weights, and without old keys");
  evaluate_command->add_option("RUN", folders, "folders of runs")->required();
  evaluate_command->add_option("--types", evaluation.types, "types of ggml that the layers' weights are rounded to")->delimiter(',')->allow_extra_args(false)->capture_default_str();
  evaluate_command->add_option("--window", evaluation.window, "last keys that remain")->capture_default_str();
  evaluate_command->add_option("--first", evaluation.first, "first keys that remain too")->delimiter(',')->allow_extra_args(false)->capture_default_str()->check(CLI::NonNegativeNumber);
  evaluate_command->add_option("--length", evaluation.lengths, "tokens of prompts that sinks are measured on")->delimiter(',')->allow_extra_args(false)->capture_default_str();
  evaluate_command->add_option("--contexts", evaluation.contexts, "contexts of the validation part")->capture_default_str()->check(CLI::Range(1, 4096));
  evaluate_command->callback([&] { chosen = [&] { return evaluate(folders, evaluation); }; });

  BackcopyOptions backcopy;
  std::vector<std::string> attentions = {"softmax", "relu"};
  CLI::App* backcopy_command = app.add_subcommand("bigram-backcopy", "Trains one head on the Bigram-Backcopy task, where softmax grows a sink");
  backcopy_command->add_option("--attention", attentions, "attention variants, one after the other")->delimiter(',')->capture_default_str();
  backcopy_command->add_option("--position", backcopy.position, "how positions are told")->check(CLI::IsMember({"rope", "learned", "alibi", "none"}))->capture_default_str();
  backcopy_command->add_option("--vocabulary", backcopy.vocabulary, "tokens, BOS among them")->capture_default_str();
  backcopy_command->add_option("--triggers", backcopy.triggers, "tokens behind which the one before comes again")->capture_default_str();
  backcopy_command->add_option("--context", backcopy.context, "tokens of a sequence")->capture_default_str();
  backcopy_command->add_option("--width", backcopy.width, "numbers of a hidden state, and of the head")->capture_default_str();
  backcopy_command->add_option("--batch", backcopy.batch, "sequences of a step")->capture_default_str();
  backcopy_command->add_option("--steps", backcopy.steps, "steps")->capture_default_str();
  backcopy_command->add_option("--rate", backcopy.rate, "learning rate of Adam")->capture_default_str();
  backcopy_command->add_option("--seed", backcopy.seed, "of the chain, weights and batches")->capture_default_str();
  backcopy_command->callback([&] { chosen = [&] { return run_backcopy(backcopy, attentions); }; });

  app.add_subcommand("keys", "Lists the keys of a run, presets and attention variants")->callback([&] { chosen = list_keys; });

  try {
    app.parse(argc, argv);
    return chosen();
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    const bool no_command = dynamic_cast<const CLI::RequiredError*>(&e) && app.get_subcommands().empty();
    const std::string what = !no_command ? e.what() : argc > 1 ? fmt::format("'{}' is no command of sinkscope-train", argv[1]) : "a command is missing";
    std::string commands;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) commands += (commands.empty() ? "; use " : ", ") + command->get_name();
    std::fputs(fmt::format("sinkscope-train: {}{}; see sinkscope-train --help\n", what, no_command ? commands : "").c_str(), stderr);
    return kWrongUse;
  } catch (const UsageError& e) {
    print_sentence(e.what());
    return kWrongUse;
  } catch (const std::exception& e) {
    print_sentence(sentence_of(e));
    return kFailed;
  }
}

}  // namespace
}  // namespace sinkscope::train

// Tensors of a step are of the same sizes as those of the step before: their memory stays, in place of new pages each time.
void keep_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

int main(int argc, char** argv) {
  spin_less(argv);
  keep_memory();
  for (const int s : {SIGINT, SIGTERM}) handle(s, [](int) { sinkscope::train::interrupted = true; });  // waiting for runs ends too
  return sinkscope::train::main_of(argc, argv);
}
