#include <algorithm>
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

// What a line says of each result, whatever the task.
std::string name(const EvalResult& r) {
  return fmt::format("{:<10} {:>5} {:>6} {:>7}", r.policy, r.kv_type, r.sinks, r.budget_rows ? std::to_string(r.budget_rows) : "-");
}
std::string settings(const EvalResult& r) { return fmt::format("{} {:>10} {:>9.0f}", name(r), bytes(r.kv_bytes), r.mean_rows); }
std::string head(const char* of_task) {
  return fmt::format("{:<10} {:>5} {:>6} {:>7} {:>10} {:>9} {} {:>9}\n", "policy", "type", "sinks", "budget", "memory", "mean rows", of_task, "tokens/s");
}

std::string predictions(const Eval& e) {
  std::string text = fmt::format("{}, {} of {}, {} at a time, positions: {}\n\n", printable(e.model.name), counted(e.n_token, "token"), e.options.text, e.options.chunk, e.options.positions) +
                     head("      ppl       KL  same top");
  const auto compared = [](double value, const char* unit, int digits) { return std::isnan(value) ? "-" : fmt::format("{:.{}f}{}", value, digits, unit); };
  for (const EvalResult& r : e.results)
    text += fmt::format("{} {:>9.3f} {:>8} {:>9} {:>9.0f}\n", settings(r), r.ppl, compared(r.kl, "", 4), compared(r.same_top, " %", 1), r.tokens_per_second);
  // More of them are for --json and --plot.
  constexpr size_t kMostColumns = 10;
  if (const size_t n = e.results[0].ppl_by_1024.size(); n < 2 || n > kMostColumns) return text;
  text += "\nPerplexity by 1,024 tokens\n";
  for (const EvalResult& r : e.results) {
    text += name(r);
    for (const double ppl : r.ppl_by_1024) text += fmt::format(" {:>9.3f}", ppl);
    text += "\n";
  }
  return text;
}

// Of the answers for which `about` says so, those that are right.
template <class About>
std::string right_of(const EvalResult& r, const About& about) {
  const auto n = std::ranges::count_if(r.answers, about);
  const auto right = std::ranges::count_if(r.answers, [&](const auto& a) { return about(a) && a.found == a.expected; });
  return fmt::format("{}/{}", right, n);
}

std::string answers(const Eval& e) {
  const bool needle = e.options.task == "needle";
  std::vector<int> lengths;
  if (needle)
    for (const auto& a : e.results[0].answers)
      if (!std::ranges::count(lengths, a.length)) lengths.push_back(a.length);
  std::string columns = "    right";
  for (const int n : lengths) columns += fmt::format(" {:>8}", fmt::format("of {}", n));
  std::string text = fmt::format("{}, task {}, {} tokens, {} at a time, positions: {}\n\n", printable(e.model.name), e.options.task, e.n_token, e.options.chunk,
                                 e.options.positions) + head(columns.c_str());
  for (const EvalResult& r : e.results) {
    text += fmt::format("{} {:>9}", settings(r), right_of(r, [](const auto&) { return true; }));
    for (const int n : lengths) text += fmt::format(" {:>8}", right_of(r, [&](const auto& a) { return a.length == n; }));
    text += fmt::format(" {:>9.0f}\n", r.tokens_per_second);
  }
  return text;
}

std::string table(const Eval& e) { return e.options.task == "text" ? predictions(e) : answers(e); }

void run(const EvalOptions& options) {
  const Eval result = behind_a_bar([&](const Progress& progress) { return evaluate(options, progress); });
  print_notes(result.notes);
  std::fputs(table(result).c_str(), stdout);
}

}  // namespace

void add_eval_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* sub = app.add_subcommand("eval", "What KV policies cost: perplexity, divergence, memory and speed against keeping everything");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->text, "text file; - is standard input; none for --task needle and lines");
  add_options(*sub, eval_options(), *options);
  for (const char* file : {"--json", "--report", "--plot", "--resume"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, sub, &chosen] {
    chosen = [options, sub] {
      one_of(*sub, "--budget", "--kv-budget");
      run(*options);
    };
  });
}

}  // namespace sinkscope::cli
