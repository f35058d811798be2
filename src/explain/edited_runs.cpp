#include "explain/edited_runs.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

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
constexpr size_t kLossTokens = 128;     // of a prompt in such a run
constexpr double kShareOfTokens = 0.25; // of all prompts that may be run again
constexpr float kWorks = 1.0f / 3;      // a head works where the first key gets less than this share of epsilon

intervene::Shape shape_of(const Context& c) {
  const ModelInfo& m = c.model.info();
  return {.n_layer = m.n_layer, .n_head = m.n_head, .n_embd = m.n_embd, .n_expert = m.n_expert, .n_vocab = m.n_vocab, .n_token = 0};
}

intervene::GraphNames names_of(const Context& c) {
  intervene::GraphNames names;
  c.session.hook_tensors({&names});
  c.session.run(std::span(c.prompts[0]).first(2));
  c.session.hook_tensors({});
  return names;
}

// While it lives, the session runs with some edits.
class Edited {
 public:
  Edited(const Context& c, std::vector<Edit> edits)
      : session_(c.session), attention_(edits, shape_of(c), attention::kernels(c.options.isa), c.options.seed), hidden_(edits, names_of(c), c.model.info().n_layer, c.model.info().file) {
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

std::vector<float> mass_on(const std::vector<int>& positions, const measure::Recorder& recorder) {
  std::vector<float> of_heads;
  for (const measure::LayerRecord& layer : recorder.layers())
    for (int h = 0; h < layer.n_head; ++h) {
      float& mass = of_heads.emplace_back(0.0f);
      for (const int k : positions) mass += layer.alpha(h, k, recorder.n_token());
    }
  return of_heads;
}

void confirm_dormant(const Context& c, const std::vector<SinkMass>& masses, Explanation& result) {
  if (c.prompts.size() < 2 || !c.session.has_memory()) return;
  struct Candidate {
    LayerHead head;
    size_t sinking = 0, working = 0;
    float most = 0, least = 0;
  };
  std::vector<Candidate> candidates;
  size_t h = 0;
  for (const LayerProfile& layer : result.profile.layers)
    for (const HeadProfile& head : layer.heads) {
      const auto alpha = [&](const SinkMass& mass) { return mass.on_first[h]; };
      const auto [least, most] = std::ranges::minmax_element(masses, {}, alpha);
      if (alpha(*most) > c.options.epsilon && alpha(*least) < c.options.epsilon * kWorks)
        candidates.push_back({.head = {layer.layer, head.head}, .sinking = static_cast<size_t>(most - masses.begin()), .working = static_cast<size_t>(least - masses.begin()),
                              .most = alpha(*most), .least = alpha(*least)});
      ++h;
    }
  std::ranges::stable_sort(candidates, std::ranges::greater(), [](const Candidate& x) { return x.most - x.least; });

  size_t n_token = 0;
  for (const Prompt& p : c.prompts) n_token += p.size();
  double left = kShareOfTokens * static_cast<double>(n_token);
  std::map<size_t, double> before;
  const auto loss = [&](size_t prompt) {
    Prompt start = c.prompts[prompt];
    start.resize(std::min(start.size(), kLossTokens));
    left -= static_cast<double>(start.size());
    return loss_of(c.session, start, c.model.info().n_vocab);
  };
  for (const Candidate& x : candidates) {
    if (result.dormant.size() == kMostDormant || (left <= 0 && !result.dormant.empty())) break;
    for (const size_t prompt : {x.sinking, x.working})
      if (!before.contains(prompt)) before[prompt] = loss(prompt);
    const Edited edited(c, {Edit{.kind = Edit::Kind::silence, .heads = {{x.head.layer, x.head.head}}}});
    result.dormant.push_back({.layer = x.head.layer, .head = x.head.head, .sinking_prompt = static_cast<int>(x.sinking), .working_prompt = static_cast<int>(x.working),
                              .alpha_sinking = x.most, .alpha_working = x.least, .loss_sinking = loss(x.sinking) - before[x.sinking],
                              .loss_working = loss(x.working) - before[x.working]});
  }
  if (candidates.size() > result.dormant.size())
    result.notes.push_back(fmt::format("{} heads sink on one prompt and work on another, the loss without them was measured for {}", candidates.size(), result.dormant.size()));
}

void silence_super_experts(const Context& c, const std::vector<SinkMass>& masses, Explanation& result) {
  std::vector<std::pair<int, int>> experts;
  for (const ExpertUse& e : result.experts)
    if (e.is_super) experts.emplace_back(e.layer, e.expert);
  if (experts.empty()) return;
  measure::Recorder recorder(attention::kernels(c.options.isa), {.maps = {}, .all_first_mass = false});
  Edited edited(c, {Edit{.kind = Edit::Kind::silence_experts, .experts = experts}});
  c.session.watch({&recorder});
  std::vector<double> before(masses[0].on_sinks.size()), after(before.size());
  for (size_t p = 0; p < std::max<size_t>(1, static_cast<size_t>(kShareOfTokens * static_cast<double>(c.prompts.size()))); ++p) {
    recorder.start(static_cast<int>(c.prompts[p].size()));
    edited.start();
    c.session.run(c.prompts[p]);
    const std::vector<float> left = mass_on(masses[p].positions, recorder);
    for (size_t h = 0; h < before.size(); ++h) before[h] += masses[p].on_sinks[h], after[h] += left[h];
  }
  c.session.watch({});
  double ratio = 0;
  for (size_t h = 0; h < before.size(); ++h) ratio += before[h] > 0 ? after[h] / before[h] / static_cast<double>(before.size()) : 0;
  result.d_sink = 1 - ratio;
}

}  // namespace sinkscope::explain_run
