#include "sinkscope/eval.h"

#include <algorithm>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "eval/candidate.h"
#include "eval/checkpoint.h"
#include "eval/plot.h"
#include "eval/prediction.h"
#include "eval/tasks.h"
#include "io/gnuplot.h"
#include "io/sha256.h"
#include "policy/budget.h"
#include "policy/map_files.h"
#include "policy/policy.h"
#include "policy/protect.h"
#include "report/result_files.h"
#include "session/check.h"
#include "session/text.h"
#include "session/windows.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "sinkscope/models.h"

namespace sinkscope {
namespace {

using eval_run::Candidate, eval_run::kRecompute;

policy::MapFiles map_files(const EvalOptions& o) { return {o.sink_map, o.duo_heads}; }

template <class T>
void once(const char* option, const std::vector<T>& values) {
  for (auto v = values.begin(); v != values.end(); ++v)
    if (std::find(values.begin(), v, *v) != v) throw UsageError(fmt::format("{} has {} twice; give it once", option, *v));
}

void check(const EvalOptions& o) {
  using session::at_least;
  at_least("--tokens", o.tokens, 0);
  if (o.tokens == 1) throw UsageError("--tokens 1 leaves nothing to predict; use 2 or more, or 0 for the whole text");
  at_least("--skip", o.skip, 0);
  if (o.task != "text" && o.task != "needle" && o.task != "lines") throw UsageError(fmt::format("--task '{}' is unknown; use text, needle or lines", o.task));
  if (o.task == "text" && o.text.empty()) throw UsageError("TEXT is missing; give a file, or --task needle or lines, which make their own");
  if (o.task != "text" && (!o.text.empty() || o.tokens == 0 || o.skip > 0))
    throw UsageError(fmt::format("--task {} makes a text of its own, of --tokens; give no TEXT, no --skip, and how many", o.task));
  if (o.tokens > 0 && o.skip > o.tokens - 2) throw UsageError(fmt::format("--skip {} leaves nothing of {} tokens to predict; use {} or less", o.skip, o.tokens, o.tokens - 2));
  at_least("--chunk", o.chunk, 1);
  at_least("--threads", o.threads, 0);
  for (const int b : o.budgets) at_least("--budget", b, 1);
  for (const int s : o.sinks) at_least("--sinks", s, 0);
  for (const std::string& type : o.kv_types) cache::precision(type);
  for (const std::string& p : o.policies)
    if (p != kRecompute) policy::kind(p);
    else if (!o.kv_budgets.empty()) throw UsageError("policy 'recompute' keeps no rows that bytes could be counted of; give --budget");
  once("--policy", o.policies);
  once("--budget", o.budgets);
  once("--kv-budget", o.kv_budgets);
  once("--kv-type", o.kv_types);
  once("--sinks", o.sinks);
  map_files(o).check(o.policies);
  policy::check_protects(o.protect, o.policies);
}

}  // namespace

double EvalResult::accuracy() const {
  const auto n = std::ranges::count_if(answers, [](const Answer& a) { return a.found == a.expected; });
  return answers.empty() ? 0 : 100.0 * static_cast<double>(n) / static_cast<double>(answers.size());
}

Eval evaluate(const EvalOptions& o, const Progress& progress) {
  check(o);
  report::ResultFiles results({o.json, o.report, ""});
  std::vector<io::Place> places = results.places();
  places.insert(places.end(), {{"--plot", o.plot}, {"--resume", o.resume}});
  io::check_places({o.text, resolve_model(o.model), o.sink_map, o.duo_heads}, places);
  results.open();
  std::optional<AtomicFile> plot;
  if (!o.plot.empty()) {
    io::check_gnuplot();
    plot.emplace(o.plot);
  }
  std::vector<MemoryOptions> budgets;
  for (const std::string& amount : o.kv_budgets) budgets.push_back({.budget_bytes = policy::bytes_of(amount)});
  if (budgets.empty())
    for (const int rows : o.budgets) budgets.push_back({.budget = rows});
  const Model model(o.model);
  Eval e;
  e.model = model.info();
  e.options = o;
  e.bos = session::wants_bos(o.bos, e.model);
  const bool asks = o.task != "text";
  const std::string text = asks ? "" : session::read_text(o.text);
  std::vector<int> tokens;
  if (!asks) tokens = session::first_tokens(model, text, session::named(o.text), e.bos, o.tokens, o.skip + 2);
  e.sha256 = io::sha256_of_file(e.model.file);
  const policy::Subject subject{e.sha256, e.bos};
  std::vector<std::string> files_read;
  for (const std::string& policy : o.policies)
    if (const std::string file = map_files(o).of(policy); std::ranges::count(files_read, file) == 0) files_read.push_back(file);
  files_read.push_back(policy::sink_map_of(o.protect));
  for (const std::string& file : files_read)
    if (!file.empty()) e.sink_maps.push_back({file, io::sha256_of_file(file)});
  std::string inputs = e.sha256 + text;
  for (const Eval::SinkMapFile& m : e.sink_maps) inputs += m.sha256;
  eval_run::Checkpoint checkpoint(o.resume, o, inputs);
  e.n_token = asks ? o.tokens : static_cast<int>(tokens.size());
  if (!e.bos && e.model.bos < 0) e.notes.push_back("the model has no BOS: its sink is the text's first token");

  std::vector<std::unique_ptr<Candidate>> candidates;
  const auto add = [&](const std::string& policy, const std::string& kv_type, MemoryOptions memory) {
    memory.policy = policy;
    memory.positions = o.positions;
    candidates.push_back(std::make_unique<Candidate>(model, o, kv_type, memory));
  };
  if (!o.alone) add("full", "f16", {.sinks = 0});
  for (const std::string& policy : o.policies) {
    const policy::Kind& kind = policy::kind(policy == kRecompute ? "window" : policy);
    const auto map = map_files(o).read(policy, subject, windows(model.impl()), e.model.n_head_kv);
    for (const std::string& kv_type : o.kv_types) {
      if (policy == "full" && kv_type == "f16" && !o.alone) continue;
      for (MemoryOptions memory : kind.needs_budget ? budgets : std::vector<MemoryOptions>(1))
        for (const int sinks : kind.has_sinks ? o.sinks : std::vector<int>{0}) {
          memory.sinks = sinks;
          memory.protect = policy::protected_positions(o.protect, kv_type, subject);
          memory.sink_map = map;
          add(policy, kv_type, memory);
        }
    }
  }
  e.notes.insert(e.notes.end(), candidates[0]->notes().begin(), candidates[0]->notes().end());
  for (const std::string& policy : policy::unprotected(o.protect, o.policies)) e.notes.push_back(fmt::format("policy {} keeps the newest rows alone: --protect is for the others", policy));

  if (asks) eval_run::ask(model, o, e.bos, candidates, checkpoint, progress);
  else eval_run::predict(model, o, tokens, candidates, checkpoint, progress);
  for (const auto& c : candidates) {
    if (!asks) c->finish(o.alone);
    e.results.push_back(c->result);
  }
  results.write(e.model.name, to_json(e));
  std::vector<AtomicFile*> files = results.written();
  if (plot) plot->write(eval_run::to_svg(e)), files.push_back(&*plot);
  commit_together(files);
  checkpoint.remove();
  return e;
}

}  // namespace sinkscope
