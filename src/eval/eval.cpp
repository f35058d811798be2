#include "sinkscope/eval.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <unistd.h>

#include "attention/team.h"
#include "eval/checkpoint.h"
#include "eval/plot.h"
#include "eval/tasks.h"
#include "io/sha256.h"
#include "policy/budget.h"
#include "policy/policy.h"
#include "policy/protect.h"
#include "session/predictions.h"
#include "session/text.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

constexpr int kTokensPerPoint = 1024;
constexpr const char* kRecompute = "recompute";  // a policy of eval alone: it needs the tokens

void check(const EvalOptions& o) {
  const auto at_least = [](const char* option, int value, int least) {
    if (value < least) throw UsageError(fmt::format("{} {} is too small; use {} or more", option, value, least));
  };
  at_least("--tokens", o.tokens, 0);
  if (o.tokens == 1) throw UsageError("--tokens 1 leaves nothing to predict; use 2 or more, or 0 for the whole text");
  at_least("--skip", o.skip, 0);
  if (o.task != "text" && o.task != "needle" && o.task != "lines") throw UsageError(fmt::format("--task '{}' is unknown; use text, needle or lines", o.task));
  if (o.task == "text" && o.text.empty()) throw UsageError("TEXT is missing; give a file, or --task needle or lines, which make their own");
  if (o.task != "text" && !o.resume.empty()) throw UsageError(fmt::format("--resume is for texts, not for --task {}; leave it away", o.task));
  if (o.task != "text" && (!o.text.empty() || o.tokens == 0 || o.skip > 0))
    throw UsageError(fmt::format("--task {} makes a text of its own, of --tokens; give no TEXT, no --skip, and how many", o.task));
  if (o.tokens > 0 && o.skip > o.tokens - 2) throw UsageError(fmt::format("--skip {} leaves nothing of {} tokens to predict; use {} or less", o.skip, o.tokens, o.tokens - 2));
  at_least("--chunk", o.chunk, 1);
  at_least("--threads", o.threads, 0);
  for (const int b : o.budgets) at_least("--budget", b, 1);
  for (const int s : o.sinks) at_least("--sinks", s, 0);
  if (o.bos != "auto" && o.bos != "always" && o.bos != "never")
    throw UsageError(fmt::format("--bos '{}' is unknown; use auto or always or never", o.bos));
  for (const std::string& type : o.kv_types) cache::precision(type);
  for (const std::string& p : o.policies)
    if (p != kRecompute) policy::kind(p);
    else if (!o.kv_budgets.empty()) throw UsageError("policy 'recompute' keeps no rows that bytes could be counted of; give --budget");
}

// Of this process; 0 where the system does not tell.
int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// What a policy predicts, chunk by chunk.
class Candidate {
 public:
  Candidate(const Model& model, const EvalOptions& o, const std::string& kv_type, const MemoryOptions& memory)
      : session_(model, session_options(o, kv_type, memory)), recompute_(memory.policy == kRecompute) {
    result.policy = memory.policy;
    result.kv_type = kv_type;
    result.budget_rows = memory.budget;
    result.sinks = memory.sinks;
  }

  // The tokens [first, first + n) join what is remembered.
  void skip(std::span<const int> tokens, int first, int n) {
    if (recompute_) return;
    if (first == 0) session_.run(tokens.first(n));
    else session_.append(tokens.subspan(first, n));
  }

  // Logits behind each of the tokens [first, first + n).
  const std::vector<float>& predict(std::span<const int> tokens, int first, int n) {
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
    result.kv_bytes = std::max(result.kv_bytes, static_cast<int64_t>(session_.memory_bytes()));
    result.tokens_per_second = n_token_ / seconds_;
    if (!recompute_) result.budget_rows = session_.memory_budget();
    result.mean_rows = rows_ / n_token_;
    return logits_;
  }

  // To go on later, and back.
  nlohmann::json state() const {
    nlohmann::json stretches = nlohmann::json::array();
    for (const auto& [index, s] : stretches_) stretches.push_back({index, s.n_token, s.seconds, s.rss});
    return {{"memory", recompute_ ? nlohmann::json() : nlohmann::json::binary(session_.save())}, {"nll", nll}, {"kl", kl}, {"n_same_top", n_same_top},
            {"stretches", stretches}, {"seconds", seconds_}, {"rows", rows_}, {"n_token", n_token_}, {"kv_bytes", result.kv_bytes}, {"budget_rows", result.budget_rows}};
  }
  void restore(const nlohmann::json& from) {
    if (!recompute_) session_.load(from.at("memory").get_binary());
    for (const auto& s : from.at("stretches")) stretches_[s.at(0)] = {s.at(1), s.at(2), s.at(3)};
    nll = from.at("nll").get<std::vector<double>>();
    kl = from.at("kl"), n_same_top = from.at("n_same_top"), seconds_ = from.at("seconds"), rows_ = from.at("rows"), n_token_ = from.at("n_token");
    result.kv_bytes = from.at("kv_bytes"), result.budget_rows = from.at("budget_rows");
  }

  void finish_stretches() {
    for (const auto& [index, s] : stretches_) {
      result.tokens_per_second_by_1024.push_back(s.n_token / s.seconds);
      result.rss_by_1024.push_back(s.rss);
    }
  }

  int n_thread() const { return session_.n_thread(); }
  const std::vector<std::string>& notes() const { return session_.notes(); }

  EvalResult result;
  std::vector<double> nll;             // of each token behind the first and the skipped ones
  double kl = 0;
  int64_t n_same_top = 0;

 private:
  static SessionOptions session_options(const EvalOptions& o, const std::string& kv_type, MemoryOptions memory) {
    const bool recompute = memory.policy == kRecompute;
    const int n_batch = recompute ? memory.budget : o.chunk;
    if (recompute) memory.policy = "full", memory.budget = 0;
    return {.n_context = 0, .n_batch = n_batch, .n_thread = o.threads, .kv_type = kv_type, .isa = o.isa,
            .attention = Attention::sinkscope, .all_logits = !recompute, .blas = !o.no_blas, .batch_invariant = false,
            .memory = std::move(memory)};
  }

  // The baseline that streaming is to replace: the last tokens, anew for every token.
  void from_scratch(std::span<const int> tokens, int first, int n) {
    std::vector<float> last, all;
    for (int i = first; i < first + n; ++i) {
      const int begin = std::max(0, i + 1 - result.budget_rows);
      session_.run(tokens.subspan(begin, i + 1 - begin), &last);
      all.insert(all.end(), last.begin(), last.end());
    }
    logits_ = std::move(all);
  }

  struct Stretch {
    int n_token = 0;
    double seconds = 0;
    int64_t rss = 0;
  };

  Session session_;
  bool recompute_;
  std::map<int, Stretch> stretches_;  // of kTokensPerPoint tokens each
  std::vector<float> logits_;
  double seconds_ = 0, rows_ = 0;
  int n_token_ = 0;
};

struct Row {
  std::vector<float> full, other;
  std::vector<double> nll, kl;  // by candidate
  std::vector<bool> same_top;
};

// One token's predictions by all candidates; the others are compared with the first.
void compare(const std::vector<const std::vector<float>*>& logits, int row, int n_vocab, int next, Row& r) {
  int top = 0;
  for (size_t c = 0; c < logits.size(); ++c) {
    std::vector<float>& log_p = c == 0 ? r.full : r.other;
    const int this_top = session::log_probabilities(logits[c]->data() + static_cast<size_t>(row) * n_vocab, n_vocab, log_p);
    if (c == 0) top = this_top;
    r.nll[c] = -static_cast<double>(log_p[next]);
    r.kl[c] = c == 0 ? 0 : session::divergence(r.full, log_p);
    r.same_top[c] = this_top == top;
  }
}

double perplexity(std::span<const double> nll) {
  double sum = 0;
  for (const double v : nll) sum += v;
  return std::exp(sum / static_cast<double>(nll.size()));
}

void finish(Candidate& c, size_t skip, bool alone) {
  EvalResult& r = c.result;
  c.finish_stretches();
  const std::span<const double> nll = c.nll;
  r.ppl = perplexity(nll);
  // nll[i] is of token skip + i + 1.
  const size_t n_token = skip + 1 + nll.size();
  for (size_t begin = (skip + 1) / kTokensPerPoint * kTokensPerPoint; begin < n_token; begin += kTokensPerPoint) {
    const size_t first = std::max(begin, skip + 1) - skip - 1, end = std::min(begin + kTokensPerPoint, n_token) - skip - 1;
    r.ppl_by_1024.push_back(perplexity(nll.subspan(first, end - first)));
  }
  constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
  r.kl = alone ? kNothing : c.kl / static_cast<double>(nll.size());
  r.same_top = alone ? kNothing : 100 * static_cast<double>(c.n_same_top) / static_cast<double>(nll.size());
}

// The text through all candidates, chunk by chunk.
void predict(const Model& model, const EvalOptions& o, const std::vector<int>& tokens, std::vector<std::unique_ptr<Candidate>>& candidates, eval_run::Checkpoint& checkpoint,
             const Progress& progress) {
  const int n_token = static_cast<int>(tokens.size());
  const int n_vocab = model.info().n_vocab;
  std::vector<Row> rows(o.chunk);
  for (Row& r : rows) r.nll.resize(candidates.size()), r.kl.resize(candidates.size()), r.same_top.resize(candidates.size());
  int start = 0;
  if (const nlohmann::json state = checkpoint.read(); !state.is_null()) {
    start = state.at("first");
    for (size_t c = 0; c < candidates.size(); ++c) candidates[c]->restore(state.at("candidates").at(c));
  }
  for (int first = start, n; first < o.skip; first += n) {
    n = std::min(o.chunk, o.skip - first);
    for (const auto& c : candidates) c->skip(tokens, first, n);
    if (progress) progress("skipped tokens", first + n, o.skip);
  }
  for (int first = std::max(start, o.skip); first < n_token; first += o.chunk) {
    if (checkpoint.is_due()) {
      nlohmann::json states = nlohmann::json::array();
      for (const auto& c : candidates) states.push_back(c->state());
      checkpoint.write({{"first", first}, {"candidates", states}});
    }
    const int n = std::min(o.chunk, n_token - first), n_predicted = std::min(n, n_token - 1 - first);
    std::vector<const std::vector<float>*> logits;
    for (const auto& c : candidates) logits.push_back(&c->predict(tokens, first, n));
    attention::run_tasks(n_predicted, candidates[0]->n_thread(),
                         [&](int i, int) { compare(logits, i, n_vocab, tokens[first + i + 1], rows[i]); });
    for (int i = 0; i < n_predicted; ++i)
      for (size_t c = 0; c < candidates.size(); ++c) {
        candidates[c]->nll.push_back(rows[i].nll[c]);
        candidates[c]->kl += rows[i].kl[c];
        candidates[c]->n_same_top += rows[i].same_top[c];
      }
    if (progress) progress("policies", first + n, n_token);
  }
}

// Questions to each candidate. What is answered stays in its memory, as in a conversation.
void ask(const Model& model, const EvalOptions& o, bool bos, std::vector<std::unique_ptr<Candidate>>& candidates, const Progress& progress) {
  constexpr int kMostTokens = 12;  // of an answer
  const std::vector<eval_run::Question> questions = o.task == "needle" ? eval_run::needle(o.tokens, o.seed) : eval_run::lines(o.tokens, o.seed);
  if (questions.empty()) throw UsageError(fmt::format("--tokens {} is too short for a question of task {}; use more", o.tokens, o.task));
  int64_t done = 0;
  for (const auto& c : candidates) {
    std::vector<int> tokens;
    size_t n_run = 0;
    for (const eval_run::Question& q : questions) {
      if (q.starts_anew) tokens.assign(bos ? 1 : 0, model.info().bos), n_run = 0;
      for (const int t : model.tokenize(q.text)) tokens.push_back(t);
      c->skip(tokens, static_cast<int>(n_run), static_cast<int>(tokens.size() - 1 - n_run));
      std::string text;
      for (int i = 0; i < kMostTokens && text.find('\n') == std::string::npos; ++i) {
        n_run = tokens.size();
        const std::vector<float>& logits = c->predict(tokens, static_cast<int>(n_run) - 1, 1);
        tokens.push_back(static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
        text += model.token_text(tokens.back());
        if (const std::string digits = eval_run::digits_of(text); digits.size() >= q.answer.size()) break;
      }
      c->result.answers.push_back({.length = q.length, .depth = q.depth, .line = q.line, .expected = q.answer, .found = eval_run::digits_of(text)});
      if (progress) progress("questions", ++done, static_cast<int64_t>(questions.size() * candidates.size()));
    }
  }
}

}  // namespace

double EvalResult::accuracy() const {
  const auto n = std::ranges::count_if(answers, [](const Answer& a) { return a.found == a.expected; });
  return answers.empty() ? 0 : 100.0 * static_cast<double>(n) / static_cast<double>(answers.size());
}

Eval evaluate(const EvalOptions& o, const Progress& progress) {
  check(o);
  std::optional<AtomicFile> json;
  if (!o.json.empty()) json.emplace(o.json);
  std::optional<AtomicFile> plot;
  if (!o.plot.empty()) {
    eval_run::check_gnuplot();
    plot.emplace(o.plot);
  }
  policy::protected_positions(o.protect, "f16");
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
  eval_run::Checkpoint checkpoint(o.resume, o, e.sha256 + text);
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
    for (const std::string& kv_type : o.kv_types) {
      if (policy == "full" && kv_type == "f16" && !o.alone) continue;
      for (MemoryOptions memory : kind.needs_budget ? budgets : std::vector<MemoryOptions>(1))
        for (const int sinks : kind.has_sinks ? o.sinks : std::vector<int>{0}) {
          memory.sinks = sinks;
          memory.protect = policy::protected_positions(o.protect, kv_type);
          if (kind.needs_map) memory.sink_map = o.sink_map;
          add(policy, kv_type, memory);
        }
    }
  }
  e.notes.insert(e.notes.end(), candidates[0]->notes().begin(), candidates[0]->notes().end());

  if (asks) ask(model, o, e.bos, candidates, progress);
  else predict(model, o, tokens, candidates, checkpoint, progress);
  for (const auto& c : candidates) {
    if (!asks) finish(*c, o.skip, o.alone);
    e.results.push_back(c->result);
  }
  std::vector<AtomicFile*> files;
  if (json) json->write(to_json(e)), files.push_back(&*json);
  if (plot) plot->write(eval_run::to_svg(e)), files.push_back(&*plot);
  commit_together(files);
  checkpoint.remove();
  return e;
}

}  // namespace sinkscope
