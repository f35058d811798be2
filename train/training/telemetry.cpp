#include "training/telemetry.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "attention/kernels.h"
#include "measure/metrics.h"
#include "measure/onset.h"
#include "measure/recorder.h"
#include "sinkscope/error.h"
#include "training/loss.h"

namespace sinkscope::train {
namespace {

using torch::Tensor;

constexpr int kMinRows = 16;

// One prompt's weights [n_head, n, n] of each layer, shown to the recorder as the kernel shows its tiles.
void show(const std::vector<Tensor>& layers, const Tensor& visible, measure::Recorder& recorder) {
  for (size_t l = 0; l < layers.size(); ++l) {
    const Tensor weights = layers[l].contiguous(), sums = weights.sum(-1).contiguous(), largest = weights.amax(-1).contiguous();
    const Tensor share = weights / sums.unsqueeze(-1).clamp_min(1e-30), entropy = -(share * share.clamp_min(1e-30).log()).sum(-1).contiguous();
    const Tensor rest = (1 - sums).contiguous();
    const int n_head = static_cast<int>(weights.size(0)), n = static_cast<int>(weights.size(1));
    std::vector<RowView> rows(n);
    std::vector<uint32_t> key_n_row(n);
    const auto sees = visible.accessor<bool, 2>();
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < n; ++k) {
        if (!sees[i][k]) continue;
        if (rows[i].end == 0) rows[i].begin = k;
        rows[i].end = k + 1;
        ++key_n_row[k];
      }
    const AttentionShape shape{.layer = static_cast<int>(l), .n_query = n, .n_key = n, .n_head = n_head, .n_head_kv = n_head, .slots_per_head = 1, .n_slot = n_head, .rows = rows, .key_n_row = key_n_row};
    recorder.begin(shape);
    for (int h = 0; h < n_head; ++h) {
      const auto of_head = [&](const Tensor& t) { return t.data_ptr<float>() + static_cast<size_t>(h) * n; };
      recorder.see({.stream = 0, .head = h, .slot = h, .first_query = 0, .n_row = n, .key_begin = 0, .key_end = n, .weights = weights.data_ptr<float>() + static_cast<size_t>(h) * n * n,
                    .stride = static_cast<size_t>(n), .entropy = of_head(entropy), .largest_weight = of_head(largest), .learned_sink_mass = of_head(rest), .log_sum = of_head(rest)});
    }
    recorder.merge(0, 0, n_head);
    recorder.end();
  }
}

double median_of(const Tensor& x) { return x.numel() == 0 ? 0 : x.flatten().median().item<double>(); }

// The first row's length against the median of the others', mean over prompts: [n_prompt, n, d].
double first_against_others(const Tensor& rows) {
  const Tensor norms = rows.norm(2, -1);  // [n_prompt, n]
  return (norms.select(1, 0) / std::get<0>(norms.narrow(1, 1, norms.size(1) - 1).median(1)).clamp_min(1e-30)).mean().item<double>();
}

}  // namespace

Measurement measure(LanguageModel& model, const Tensor& probe, const Tensor& mask_token) {
  const torch::NoGradGuard no_grad;
  model->eval();
  Measurement m;
  const int64_t n = probe.size(1) - 1, n_prompt = probe.size(0);
  Tensor visible = model->visible(n);
  visible = visible.narrow(0, visible.size(0) - n, n).narrow(1, visible.size(1) - n, n);  // of text alone
  const auto n_row_of_first = visible.select(1, 0).sum().item<double>();  // windows hide it from others
  measure::Tally tally(kEpsilon, kMinRows);
  measure::Recorder recorder(attention::kernels("auto"));
  double loss = 0, mass = 0, gated = 0, share = 0;
  std::vector<double> norm_ratio, top_ratio, value_ratio;
  const auto add = [](std::vector<double>& sums, size_t at, double x) {
    if (sums.size() <= at) sums.resize(at + 1);
    sums[at] += x;
  };
  for (int64_t p = 0; p < n_prompt; ++p) {
    const Tensor tokens = probe.narrow(0, p, 1);
    Trace trace;
    const Tensor logits = model(tokens.narrow(1, 0, n), &trace);
    loss += model->config.diffusion ? diffusion_loss(model, tokens, mask_token, 0.5, p).item<double>() : next_token_loss(logits, tokens, model->config.prefix).item<double>();
    std::vector<Tensor> layers;
    for (const Tensor& weights : trace.weights) layers.push_back(weights[0]);
    recorder.start(static_cast<int>(n));
    show(layers, visible, recorder);
    std::vector<int> ids(n);
    for (int64_t i = 0; i < n; ++i) ids[i] = static_cast<int>(tokens[0][i].item<int64_t>());
    tally.add(recorder, ids);
    for (size_t l = 0; l < layers.size(); ++l) {
      const Tensor sums = layers[l].sum(-1);
      mass += sums.mean().item<double>() / static_cast<double>(layers.size());
      const auto alpha_of = [&](const Tensor& of_first) { return of_first.sum(-1).mean().item<double>() / n_row_of_first / static_cast<double>(layers.size()); };
      share += alpha_of(layers[l].select(-1, 0) / sums.clamp_min(1e-30));
      const Tensor open = trace.gates.empty() ? torch::ones({1}) : trace.gates[l][0].unsqueeze(-1);
      gated += alpha_of((layers[l] * open).select(-1, 0));
      add(value_ratio, l, first_against_others(trace.values[l][0]));
    }
    for (size_t l = 0; l < trace.hidden.size(); ++l) {
      const Tensor& h = trace.hidden[l];
      add(norm_ratio, l, first_against_others(h));
      add(top_ratio, l, h.abs().max().item<double>() / std::max(median_of(h.abs()), 1e-30));
    }
  }
  const auto mean = [&](std::vector<double> sums) {
    for (double& x : sums) x /= static_cast<double>(n_prompt);
    return sums;
  };
  const SinkRate rate = tally.sink_rate(1);
  m.validation = loss / static_cast<double>(n_prompt);
  m.sink_rate = rate.first, m.sink_null = rate.null;
  m.alpha = rate.alpha_by_position[0], m.alpha_null = rate.uniform_alpha_by_position[0];
  for (const LayerProfile& layer : tally.layers())
    for (const HeadProfile& head : layer.heads) m.strongest = std::max(m.strongest, head.alpha_first);
  // Late positions are seen by few rows: those that a quarter of the rows see.
  for (int64_t k = 0; k < 3 * n / 4; ++k)
    if (k == 0 || std::pair(rate.by_position[k], rate.alpha_by_position[k] / rate.uniform_alpha_by_position[k]) > std::pair(m.place_rate, m.place_alpha / rate.uniform_alpha_by_position[m.place]))
      m.place = static_cast<int>(k), m.place_rate = rate.by_position[k], m.place_alpha = rate.alpha_by_position[k];
  m.mass = mass / static_cast<double>(n_prompt), m.gated_alpha = gated / static_cast<double>(n_prompt), m.share = share / static_cast<double>(n_prompt);
  m.norm_ratio = mean(norm_ratio), m.top_ratio = mean(top_ratio), m.value_ratio = mean(value_ratio);
  model->train();
  return m;
}

namespace {

// Keys of a line, and where they go.
template <class M, class F>
void fields(M& m, const F& f) {
  f("step", m.step), f("tokens", m.tokens), f("loss", m.loss), f("validation", m.validation), f("sink_rate", m.sink_rate), f("sink_null", m.sink_null), f("alpha", m.alpha);
  f("alpha_null", m.alpha_null), f("strongest", m.strongest), f("place", m.place), f("place_rate", m.place_rate), f("place_alpha", m.place_alpha), f("gated_alpha", m.gated_alpha);
  f("mass", m.mass), f("share", m.share), f("norm_ratio", m.norm_ratio), f("top_ratio", m.top_ratio), f("value_ratio", m.value_ratio);
}

double rounded(double x) { return std::isfinite(x) ? std::stod(fmt::format("{:.6g}", x)) : 0; }

}  // namespace

std::string to_json_line(const Measurement& m) {
  nlohmann::ordered_json json;
  fields(m, [&](const char* name, const auto& value) {
    using T = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<T, double>) json[name] = rounded(value);
    else if constexpr (std::is_same_v<T, std::optional<double>>) {
      if (value) json[name] = rounded(*value);
    } else if constexpr (std::is_same_v<T, std::vector<double>>) {
      json[name] = nlohmann::ordered_json::array();
      for (const double x : value) json[name].push_back(rounded(x));
    } else json[name] = value;
  });
  return json.dump() + "\n";
}

Measurement from_json_line(const std::string& line) {
  Measurement m;
  try {
    const auto json = nlohmann::json::parse(line);
    fields(m, [&](const char* name, auto& value) {
      if constexpr (!std::is_same_v<std::decay_t<decltype(value)>, std::optional<double>>) json.at(name).get_to(value);
      else if (json.contains(name)) value = json.at(name).template get<double>();
    });
  } catch (const nlohmann::json::exception&) {
    throw InputError(fmt::format("'{}' is no measurement; give a telemetry.jsonl that sinkscope-train wrote", line.substr(0, 60)));
  }
  if (!m.share && std::abs(m.mass - 1) < 1e-5) m.share = m.alpha;  // a line of before it was measured, of rows that sum to 1
  return m;
}

int onset(const std::vector<Measurement>& curve) {
  std::vector<double> alpha, uniform;
  for (const Measurement& m : curve) alpha.push_back(m.alpha), uniform.push_back(m.alpha_null);
  return measure::onset(alpha, uniform);
}

std::vector<int64_t> measured_steps(int64_t n_step, int n) {
  std::set<int64_t> steps = {0, n_step};
  for (int i = 0; i < n; ++i) steps.insert(std::llround(std::pow(static_cast<double>(n_step), static_cast<double>(i) / (n - 1))));
  return {steps.begin(), steps.end()};
}

}  // namespace sinkscope::train
