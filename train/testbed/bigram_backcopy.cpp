#include "testbed/bigram_backcopy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include <fmt/format.h>

#include "model/model.h"
#include "sinkscope/error.h"
#include "training/telemetry.h"

namespace sinkscope::train {
namespace {

using torch::Tensor;

constexpr double kSharpness = 1.5;  // standard deviation of the chain's logits
constexpr int kProbe = 32, kFirstRow = 16;

std::vector<double> summed(std::vector<double> weights) {
  std::partial_sum(weights.begin(), weights.end(), weights.begin());
  for (double& w : weights) w /= weights.back();
  return weights;
}

void check(const BackcopyOptions& o) {
  const auto refuse = [](const std::string& what) { throw UsageError(what); };
  constexpr int kMostTokens = 4096;
  if (o.vocabulary < 4 || o.vocabulary > kMostTokens) refuse(fmt::format("--vocabulary {} cannot be; use 4 to {}", o.vocabulary, kMostTokens));
  if (o.triggers < 1 || o.triggers > o.vocabulary - 3) refuse(fmt::format("--triggers {} leaves too few other tokens; use 1 to {}", o.triggers, o.vocabulary - 3));
  if (o.context <= 2 * kFirstRow) refuse(fmt::format("--context {} is too short to measure; use more than {}", o.context, 2 * kFirstRow));
  if (o.width < 8 || o.width % 2 != 0) refuse(fmt::format("--width {} cannot be; use an even number from 8 on", o.width));
  if (o.batch < 1 || o.steps < 1) refuse("--batch and --steps must be 1 or more");
  if (!(o.rate > 0)) refuse(fmt::format("--rate {} does not train; use more than 0", o.rate));
}

LanguageModel model_of(const BackcopyOptions& o) {
  ModelConfig c;
  c.attention = o.attention, c.position = o.position;
  c.n_layer = 1, c.n_head = c.n_head_kv = 1, c.d_model = c.d_head = o.width, c.d_ff = 4 * o.width;
  c.activation = "gelu", c.tied = false;
  return LanguageModel(c, o.vocabulary, o.context, o.seed);
}

// Mean of `values` [n, context] where `where` is true, from kFirstRow on.
double mean_where(const Tensor& values, const Tensor& where) {
  const auto late = [](const Tensor& x) { return x.narrow(1, kFirstRow, x.size(1) - kFirstRow); };
  const Tensor chosen = late(where).to(values.dtype());
  return ((late(values) * chosen).sum() / chosen.sum().clamp_min(1)).item<double>();
}

BackcopyMeasurement measure(LanguageModel& model, const BackcopyTask& task, const Tensor& probe) {
  const torch::NoGradGuard no_grad;
  const int64_t n = probe.size(1) - 1;
  const Tensor tokens = probe.narrow(1, 0, n), trigger = task.triggers().index({tokens}), other = trigger.logical_not();
  Trace trace;
  const Tensor loss = torch::cross_entropy_loss(model(tokens, &trace).flatten(0, 1), probe.narrow(1, 1, n).flatten(), {}, at::Reduction::None).view_as(tokens);
  Tensor entropy = torch::empty(tokens.sizes());
  for (int64_t p = 0; p < tokens.size(0); ++p)
    for (int64_t i = 0; i < n; ++i) entropy[p][i] = task.entropy(tokens[p][i].item<int64_t>());
  const Tensor weights = trace.weights[0].squeeze(1), values = trace.values[0].squeeze(1), lengths = values.norm(2, -1);  // [n_probe, n, n], [n_probe, n, d]
  const Tensor at = torch::arange(n), before = weights.gather(2, (at - 1).clamp_min(0).view({1, n, 1}).expand({tokens.size(0), n, 1})).squeeze(2);
  const Tensor added = trace.added[0].norm(2, -1), to_bos = weights.select(2, 0);
  BackcopyMeasurement m;
  m.bigram_loss = mean_where(loss - entropy, other), m.copy_loss = mean_where(loss, trigger);
  m.sink = mean_where(to_bos, other), m.sink_null = mean_where((at + 1).to(torch::kFloat).reciprocal().expand_as(to_bos), other);
  m.mass = mean_where(weights.sum(-1), other);
  m.trigger_sink = mean_where(to_bos, trigger), m.trigger_copy = mean_where(before, trigger);
  m.value_ratio = (lengths.select(1, 0).mean() / lengths.narrow(1, 1, n - 1).median().clamp_min(1e-30)).item<double>();
  m.added_ratio = mean_where(added, other) / std::max(mean_where(added, trigger), 1e-30);
  return m;
}

}  // namespace

BackcopyTask::BackcopyTask(const BackcopyOptions& o) : options_(o), triggers_(o.vocabulary, false) {
  std::mt19937_64 random(o.seed);
  std::normal_distribution<double> normal;
  const int n = o.vocabulary;
  std::vector<std::vector<double>> transitions(n, std::vector<double>(n, 0));  // BOS never comes again
  for (auto& row : transitions) {
    for (int next = 1; next < n; ++next) row[next] = std::exp(kSharpness * normal(random));
    cumulative_.push_back(summed(row));
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    entropy_.push_back(0);
    for (double& p : row)
      if (p > 0) p /= sum, entropy_.back() -= p * std::log(p);
  }
  std::vector<double> often(n, 1.0 / n);
  for (int i = 0; i < 100; ++i) {  // towards the stationary distribution
    std::vector<double> next(n, 0);
    for (int a = 1; a < n; ++a)
      for (int b = 1; b < n; ++b) next[b] += often[a] * transitions[a][b];
    often = next;
  }
  std::vector<int> order(n - 1);
  std::iota(order.begin(), order.end(), 1);
  std::ranges::sort(order, std::greater{}, [&](int token) { return often[token]; });
  for (int i = 0; i < o.triggers; ++i) triggers_[order[i]] = true, often[order[i]] = 0;
  often[kBos] = 0;
  start_ = summed(often);
}

Tensor BackcopyTask::batch(int n, uint64_t seed) const {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform;
  const auto draw = [&](const std::vector<double>& cumulative) {
    return std::min<int64_t>(std::ranges::upper_bound(cumulative, uniform(random)) - cumulative.begin(), static_cast<int64_t>(cumulative.size()) - 1);
  };
  const int64_t length = options_.context + 1;
  Tensor tokens = torch::empty({n, length}, torch::kLong);
  for (int64_t* row = tokens.data_ptr<int64_t>(); row != tokens.data_ptr<int64_t>() + n * length; row += length) {
    row[0] = kBos, row[1] = draw(start_);
    for (int64_t i = 2; i < length; ++i) row[i] = triggers_[row[i - 1]] ? row[i - 2] : draw(cumulative_[row[i - 1]]);
  }
  return tokens;
}

Tensor BackcopyTask::triggers() const {
  Tensor list = torch::zeros({options_.vocabulary}, torch::kBool);
  for (int t = 0; t < options_.vocabulary; ++t) list[t] = bool{triggers_[t]};
  return list;
}

std::vector<BackcopyMeasurement> run_bigram_backcopy(const BackcopyOptions& o, int n_measurement, const std::function<void(const BackcopyMeasurement&)>& watch, const std::function<bool()>& go_on) {
  check(o);
  const BackcopyTask task(o);
  LanguageModel model = model_of(o);
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(o.rate).betas({0.9, 0.99}));
  const Tensor probe = task.batch(kProbe, 0);
  const std::vector<int64_t> measured = measured_steps(o.steps, n_measurement);
  std::vector<BackcopyMeasurement> curve;
  for (int step = 0; step <= o.steps; ++step) {
    if (std::ranges::binary_search(measured, step)) {
      curve.push_back(measure(model, task, probe));
      curve.back().step = step;
      if (watch) watch(curve.back());
    }
    if (step == o.steps || (go_on && !go_on())) break;
    const Tensor tokens = task.batch(o.batch, (uint64_t{o.seed} << 32) + static_cast<uint64_t>(step) + 1);
    optimizer.zero_grad();
    const Tensor logits = model(tokens.narrow(1, 0, o.context));
    torch::cross_entropy_loss(logits.flatten(0, 1), tokens.narrow(1, 1, o.context).flatten()).backward();
    optimizer.step();
  }
  return curve;
}

}  // namespace sinkscope::train
