#include <cmath>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "add_options.h"
#include "commands.h"
#include "sinkscope/eval.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

std::string bytes(int64_t n) { return n < 1 << 20 ? fmt::format("{:.0f} KiB", static_cast<double>(n) / 1024) : fmt::format("{:.1f} MiB", static_cast<double>(n) / (1 << 20)); }

std::string table(const Eval& e) {
  std::string text = fmt::format("{}, {} tokens of {}, {} at a time, positions: {}\n\n{:<10} {:>5} {:>6} {:>7} {:>10} {:>9} {:>9} {:>8} {:>9} {:>9}\n",
                                 e.model.name, e.n_token, e.options.text, e.options.chunk, e.options.positions, "policy", "type", "sinks", "budget",
                                 "memory", "mean rows", "ppl", "KL", "same top", "tokens/s");
  for (const EvalResult& r : e.results)
    text += fmt::format("{:<10} {:>5} {:>6} {:>7} {:>10} {:>9.0f} {:>9.3f} {:>8} {:>9} {:>9.0f}\n", r.policy, r.kv_type, r.sinks,
                        r.budget_rows ? std::to_string(r.budget_rows) : "-", bytes(r.kv_bytes), r.mean_rows, r.ppl,
                        std::isnan(r.kl) ? "-" : fmt::format("{:.4f}", r.kl), std::isnan(r.kl) ? "-" : fmt::format("{:.1f} %", r.same_top),
                        r.tokens_per_second);
  return text;
}

void run(const EvalOptions& options) {
  const Eval result = [&] {
    ProgressBar bar;
    return evaluate(options, [&](const std::string& what, int64_t done, int64_t total) { bar.show(what, done, total); });
  }();
  for (const std::string& note : result.notes) print_error_line("note: " + note);
  std::fputs(table(result).c_str(), stdout);
}

}  // namespace

void add_eval_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* sub = app.add_subcommand("eval", "What KV policies cost: perplexity, divergence, memory and speed against keeping everything");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->text, "text file; - is standard input")->required();
  add_options(*sub, eval_options(), *options);
  sub->get_option("--json")->check(names_a_file);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
