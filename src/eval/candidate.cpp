#include "eval/candidate.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include <unistd.h>

namespace sinkscope::eval_run {
namespace {

// Of this process; 0 where the system does not tell.
int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

SessionOptions session_options(const EvalOptions& o, const std::string& kv_type, MemoryOptions memory) {
  const bool recompute = memory.policy == kRecompute;
  const int n_batch = recompute ? memory.budget : o.chunk;
  if (recompute) memory.policy = "full", memory.budget = 0;
  return {.n_context = 0, .n_batch = n_batch, .n_thread = o.threads, .kv_type = kv_type, .isa = o.isa,
          .attention = Attention::sinkscope, .all_logits = !recompute, .blas = !o.no_blas, .batch_invariant = false,
          .memory = std::move(memory)};
}

}  // namespace

Candidate::Candidate(const Model& model, const EvalOptions& o, const std::string& kv_type, const MemoryOptions& memory)
    : session_(model, session_options(o, kv_type, memory)), recompute_(memory.policy == kRecompute) {
  result.policy = memory.policy;
  result.kv_type = kv_type;
  result.budget_rows = memory.budget;
  result.budget_bytes = memory.budget_bytes;
  result.sinks = memory.sinks;
}

void Candidate::skip(std::span<const int> tokens, int first, int n) {
  if (recompute_) return;
  if (first == 0) session_.run(tokens.first(n));
  else session_.append(tokens.subspan(first, n));
  note_bytes();
}

void Candidate::note_bytes() { result.kv_bytes = std::max(result.kv_bytes, static_cast<int64_t>(session_.memory_bytes())); }

const std::vector<float>& Candidate::predict(std::span<const int> tokens, int first, int n) {
  const auto start = std::chrono::steady_clock::now();
  if (recompute_) from_scratch(tokens, first, n);
  else if (first == 0) session_.run(tokens.first(n), &logits_);
  else session_.append(tokens.subspan(first, n), &logits_);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  seconds_ += seconds;
  Stretch& stretch = stretches_[first / kTokensPerPoint];
  stretch.n_token += n;
  stretch.seconds += seconds;
  stretch.rss = resident_bytes();
  rows_ += n * session_.memory_rows();
  n_token_ += n;
  note_bytes();
  result.tokens_per_second = n_token_ / seconds_;
  if (!recompute_) result.budget_rows = session_.memory_budget();
  result.mean_rows = rows_ / n_token_;
  return logits_;
}

// The baseline that streaming is to replace: the last tokens, anew for every token.
void Candidate::from_scratch(std::span<const int> tokens, int first, int n) {
  std::vector<float> last, all;
  for (int i = first; i < first + n; ++i) {
    const int begin = std::max(0, i + 1 - result.budget_rows);
    session_.run(tokens.subspan(begin, i + 1 - begin), &last);
    all.insert(all.end(), last.begin(), last.end());
  }
  logits_ = std::move(all);
}

void Candidate::add(int token, double nll, double kl, bool same_top) {
  Losses& losses = losses_[token / kTokensPerPoint];
  losses.sum += nll;
  ++losses.n;
  kl_ += kl;
  n_same_top_ += same_top;
}

nlohmann::json Candidate::state(bool with_memory) const {
  nlohmann::json stretches = nlohmann::json::array(), losses = nlohmann::json::array(), answers = nlohmann::json::array();
  for (const auto& [index, s] : stretches_) stretches.push_back({index, s.n_token, s.seconds, s.rss});
  for (const auto& [index, l] : losses_) losses.push_back({index, l.sum, l.n});
  for (const EvalResult::Answer& a : result.answers) answers.push_back({a.length, a.depth, a.line, a.expected, a.found});
  return {{"answers", answers}, {"memory", recompute_ || !with_memory ? nlohmann::json() : nlohmann::json::binary(session_.save())}, {"losses", losses}, {"kl", kl_}, {"n_same_top", n_same_top_},
          {"stretches", stretches}, {"seconds", seconds_}, {"rows", rows_}, {"n_token", n_token_}, {"kv_bytes", result.kv_bytes}, {"budget_rows", result.budget_rows}};
}

void Candidate::restore(const nlohmann::json& from) {
  if (const auto& memory = from.at("memory"); !memory.is_null()) session_.load(memory.get_binary());
  for (const auto& a : from.at("answers")) result.answers.push_back({a.at(0), a.at(1), a.at(2), a.at(3), a.at(4)});
  for (const auto& s : from.at("stretches")) stretches_[s.at(0)] = {s.at(1), s.at(2), s.at(3)};
  for (const auto& l : from.at("losses")) losses_[l.at(0)] = {l.at(1), l.at(2)};
  kl_ = from.at("kl"), n_same_top_ = from.at("n_same_top"), seconds_ = from.at("seconds"), rows_ = from.at("rows"), n_token_ = from.at("n_token");
  result.kv_bytes = from.at("kv_bytes"), result.budget_rows = from.at("budget_rows");
  if (n_token_ > 0) result.tokens_per_second = n_token_ / seconds_, result.mean_rows = rows_ / n_token_;
}

void Candidate::finish(bool alone) {
  EvalResult& r = result;
  for (const auto& [index, s] : stretches_) {
    r.tokens_per_second_by_1024.push_back(s.n_token / s.seconds);
    r.rss_by_1024.push_back(s.rss);
  }
  Losses all;
  for (const auto& [index, l] : losses_) {
    r.ppl_by_1024.push_back(l.perplexity());
    all.sum += l.sum, all.n += l.n;
  }
  r.ppl = all.perplexity();
  constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
  const auto n = static_cast<double>(all.n);
  r.kl = alone ? kNothing : kl_ / n;
  r.same_top = alone ? kNothing : 100 * static_cast<double>(n_same_top_) / n;
}

}  // namespace sinkscope::eval_run
