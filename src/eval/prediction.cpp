#include "eval/prediction.h"

#include <algorithm>

#include "attention/team.h"
#include "session/predictions.h"

namespace sinkscope::eval_run {
namespace {

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

}  // namespace

void predict(const Model& model, const EvalOptions& o, const std::vector<int>& tokens, std::vector<std::unique_ptr<Candidate>>& candidates, Checkpoint& checkpoint,
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
      for (size_t c = 0; c < candidates.size(); ++c) candidates[c]->add(first + i + 1, rows[i].nll[c], rows[i].kl[c], rows[i].same_top[c]);
    if (progress) progress("policies", first + n, n_token);
  }
}

}  // namespace sinkscope::eval_run
