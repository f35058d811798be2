#include "explain/edited_runs.h"

#include <algorithm>
#include <cmath>

#include "attention/kernels.h"
#include "intervene/attention.h"
#include "intervene/hidden.h"
#include "measure/hidden.h"
#include "measure/metrics.h"
#include "measure/recorder.h"
#include "session/predictions.h"

namespace sinkscope::explain_run {
namespace {

using intervene::Edit;
using profile_run::Prompt;

constexpr int kChangedToken = 1;        // the first one behind the sink
constexpr size_t kMostDormant = 4;      // heads whose loss is worth two runs each
constexpr float kWorks = 1.0f / 3;      // a head works where the first key gets less than this share of epsilon

intervene::Shape shape_of(const Context& c) {
  const ModelInfo& m = c.model.info();
  return {.n_layer = m.n_layer, .n_head = m.n_head, .n_embd = m.n_embd, .n_expert = m.n_expert, .n_vocab = m.n_vocab, .n_token = 0};
}

// While it lives, the session runs with some edits.
class Edited {
 public:
  Edited(const Context& c, std::vector<Edit> edits)
      : session_(c.session), attention_(edits, shape_of(c), attention::kernels(c.options.isa), c.options.seed), hidden_(edits) {
    session_.hook_attention({&attention_});
    if (hidden_.any()) session_.hook_tensors({&hidden_});
  }
  ~Edited() {
    session_.hook_attention({});
    session_.hook_tensors({});
  }
  Edited(const Edited&) = delete;
  Edited& operator=(const Edited&) = delete;
  void start() { hidden_.start(/*learns=*/false); }

 private:
  Session& session_;
  intervene::AttentionEdits attention_;
  intervene::HiddenEdits hidden_;
};

std::vector<std::vector<float>> states_of(Session& session, const Prompt& prompt) {
  measure::HiddenRecorder hidden(session.n_thread());
  hidden.keep_states(true);
  hidden.start(static_cast<int>(prompt.size()));
  session.hook_tensors({&hidden});
  session.run(prompt);
  session.hook_tensors({});
  return hidden.states();
}

// Of each layer, the mean over the tokens behind the changed one of how far they have moved, against their length.
std::vector<double> moved(Session& session, const Prompt& prompt, const Prompt& changed) {
  const std::vector<std::vector<float>> before = states_of(session, prompt), after = states_of(session, changed);
  std::vector<double> mean;
  for (size_t l = 0; l < before.size() && l < after.size(); ++l) {
    const size_t n_embd = before[l].size() / prompt.size();
    double sum = 0;
    for (size_t i = kChangedToken + 1; i < prompt.size(); ++i) {
      double difference = 0, length = 0;
      for (size_t d = 0; d < n_embd; ++d) {
        const double x = before[l][i * n_embd + d], y = after[l][i * n_embd + d];
        difference += (x - y) * (x - y);
        length += x * x;
      }
      sum += length > 0 ? std::sqrt(difference / length) : 0;
    }
    mean.push_back(sum / static_cast<double>(prompt.size() - kChangedToken - 1));
  }
  return mean;
}

double loss_of(Session& session, const Prompt& prompt, int n_vocab) {
  std::vector<float> logits, row;
  session.run(prompt, &logits);
  double loss = 0;
  for (size_t i = 0; i + 1 < prompt.size(); ++i) {
    session::log_probabilities(logits.data() + i * n_vocab, n_vocab, row);
    loss -= row[prompt[i + 1]];
  }
  return loss / static_cast<double>(prompt.size() - 1);
}

}  // namespace

void perturb(const Context& c, Explanation& result) {
  Prompt prompt = c.prompts[0];
  prompt.resize(std::min<size_t>(prompt.size(), c.options.perturb));
  if (!result.layers[1].hidden || prompt.size() < kChangedToken + 2) return;
  const Prompt words = profile_run::control_prompts("random", {prompt}, c.model, c.options.seed)[0];
  const auto other = std::find_if(words.begin() + 1, words.end(), [&](int token) { return token != prompt[kChangedToken]; });
  if (other == words.end()) return;
  Prompt changed = prompt;
  changed[kChangedToken] = *other;
  const auto put = [&](std::optional<double> LayerCause::*field) {
    const std::vector<double> of_layers = moved(c.session, prompt, changed);
    for (size_t l = 0; l < of_layers.size() && l < result.layers.size(); ++l) result.layers[l].*field = of_layers[l];
  };
  put(&LayerCause::moved);
  const Edited edited(c, {Edit{.kind = Edit::Kind::mask, .positions = {0}}});
  put(&LayerCause::moved_without_first);
}

void confirm_dormant(const Context& c, const std::vector<float>& alpha_first, Explanation& result) {
  const size_t n_prompt = c.prompts.size(), n_head = alpha_first.size() / std::max<size_t>(n_prompt, 1);
  if (n_prompt < 2 || !c.session.has_memory()) return;
  struct Candidate {
    size_t head, sinking, working;
    float difference;
  };
  std::vector<Candidate> candidates;
  for (size_t h = 0; h < n_head; ++h) {
    const auto alpha = [&](size_t prompt) { return alpha_first[prompt * n_head + h]; };
    size_t most = 0, least = 0;
    for (size_t p = 1; p < n_prompt; ++p) {
      if (alpha(p) > alpha(most)) most = p;
      if (alpha(p) < alpha(least)) least = p;
    }
    if (alpha(most) > c.options.epsilon && alpha(least) < c.options.epsilon * kWorks) candidates.push_back({h, most, least, alpha(most) - alpha(least)});
  }
  std::ranges::stable_sort(candidates, std::ranges::greater(), &Candidate::difference);
  if (candidates.size() > kMostDormant) candidates.resize(kMostDormant);
  const int n_vocab = c.model.info().n_vocab;
  for (const Candidate& candidate : candidates) {
    DormantHead d{.sinking_prompt = static_cast<int>(candidate.sinking), .working_prompt = static_cast<int>(candidate.working),
                  .alpha_sinking = alpha_first[candidate.sinking * n_head + candidate.head], .alpha_working = alpha_first[candidate.working * n_head + candidate.head]};
    size_t left = candidate.head;
    for (const LayerCause& layer : result.layers) {
      d.layer = layer.layer;
      d.head = static_cast<int>(left);
      if (left < layer.heads.size()) break;
      left -= layer.heads.size();
    }
    const double before_sinking = loss_of(c.session, c.prompts[candidate.sinking], n_vocab), before_working = loss_of(c.session, c.prompts[candidate.working], n_vocab);
    const Edited edited(c, {Edit{.kind = Edit::Kind::silence, .heads = {{d.layer, d.head}}}});
    d.loss_sinking = loss_of(c.session, c.prompts[candidate.sinking], n_vocab) - before_sinking;
    d.loss_working = loss_of(c.session, c.prompts[candidate.working], n_vocab) - before_working;
    result.dormant.push_back(d);
  }
}

void silence_super_experts(const Context& c, Explanation& result) {
  std::vector<std::pair<int, int>> experts;
  for (const ExpertUse& e : result.experts)
    if (e.is_super) experts.emplace_back(e.layer, e.expert);
  if (experts.empty()) return;
  // Mass on the first key, mean over prompts, by head.
  const auto mass = [&](const std::function<void()>& before_prompt) {
    measure::Recorder recorder(attention::kernels(c.options.isa), {.maps = {}, .all_first_mass = false});
    c.session.watch({&recorder});
    std::vector<double> of_heads;
    for (const Prompt& p : c.prompts) {
      recorder.start(static_cast<int>(p.size()));
      before_prompt();
      c.session.run(p);
      size_t at = 0;
      for (const measure::LayerRecord& layer : recorder.layers())
        for (int h = 0; h < layer.n_head; ++h, ++at) {
          if (at >= of_heads.size()) of_heads.push_back(0);
          of_heads[at] += layer.alpha(h, 0, recorder.n_token());
        }
    }
    c.session.watch({});
    return of_heads;
  };
  const std::vector<double> before = mass([] {});
  Edited edited(c, {Edit{.kind = Edit::Kind::silence_experts, .experts = experts}});
  const std::vector<double> after = mass([&] { edited.start(); });
  double ratio = 0;
  for (size_t h = 0; h < before.size(); ++h) ratio += before[h] > 0 ? after[h] / before[h] / static_cast<double>(before.size()) : 0;
  result.d_sink = 1 - ratio;
}

}  // namespace sinkscope::explain_run
