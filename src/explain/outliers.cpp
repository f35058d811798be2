#include "explain/outliers.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace sinkscope::explain_run {
namespace {

constexpr double kMassive = 100, kMassiveOverMedian = 1000;  // Sun et al., 2402.17762
constexpr double kSinkDimension = 20;                         // times the root mean square of a token

}  // namespace

double median_of(std::vector<float> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<long>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

const char* Outliers::Change::by() const { return !told_apart ? "layer" : std::abs(attention) > std::abs(mlp) ? "attention" : "mlp"; }

void Outliers::add(std::span<const measure::HiddenRecord> records, std::span<const measure::Step> steps, std::span<const int> prompt) {
  for (size_t l = 0; l < records.size(); ++l) {
    const measure::HiddenRecord& r = records[l];
    const double layer_median = median_of(r.median);
    for (size_t i = 0; i < r.norm.size(); ++i)
      for (const measure::Peak& peak : r.peaks[i])
        if (peak.dim >= 0) see_peak(peak, static_cast<int>(i), prompt[i], static_cast<int>(l) - 1, layer_median, r.norm[i] / std::sqrt(static_cast<double>(r.sum.size())));
  }
  for (const measure::Step& s : steps) {
    const auto at = traces_.find(key(s.position, prompt[s.position], s.dim));
    if (at == traces_.end()) continue;
    Change& change = at->second.changes[s.layer];
    change.told_apart = !std::isnan(s.after_attention);
    const double middle = change.told_apart ? std::abs(s.after_attention) : std::abs(s.before);
    ++change.n;
    change.attention += middle - std::abs(s.before);
    change.mlp += std::abs(s.after) - middle;
  }
  ++n_prompt_;
}

void Outliers::see_peak(const measure::Peak& peak, int position, int token, int layer, double layer_median, double rms) {
  const double magnitude = std::abs(peak.value), ratio = layer_median > 0 ? magnitude / layer_median : 0;
  const bool massive = magnitude > kMassive && ratio >= kMassiveOverMedian, sink_dimension = magnitude >= kSinkDimension * rms;
  if (!massive && !sink_dimension) return;
  const auto [at, is_new] = traces_.try_emplace(key(position, token, peak.dim));
  Trace& trace = at->second;
  Outlier& o = trace.outlier;
  if (is_new) o = {.dim = peak.dim, .position = position, .token = token, .first_layer = layer, .last_layer = layer};
  o.massive |= massive;
  o.sink_dimension |= sink_dimension;
  trace.places.emplace(n_prompt_, position);
  o.first_layer = std::min(o.first_layer, layer);
  o.last_layer = std::max(o.last_layer, layer);
  if (magnitude > std::abs(o.value)) o.value = peak.value, o.layer = layer, o.over_median = ratio;
}

// The layer that lets the number grow most, and behind it the one that lets it shrink most.
void Outliers::name_changes(const Trace& trace, Outlier& o) {
  const auto most = [&](auto from, double sign) {
    auto best = trace.changes.end();
    for (auto at = from; at != trace.changes.end(); ++at)
      if (sign * at->second.all() > 0 && (best == trace.changes.end() || sign * at->second.all() > sign * best->second.all())) best = at;
    return best;
  };
  const auto rise = most(trace.changes.begin(), 1);
  if (rise == trace.changes.end()) return;
  o.rises_in = rise->first, o.rises_by = rise->second.by();
  const auto fall = most(std::next(rise), -1);
  if (fall != trace.changes.end()) o.falls_in = fall->first, o.falls_by = fall->second.by();
}

std::set<int> Outliers::forming_layers() const {
  std::set<int> layers;
  for (const auto& [ignored, trace] : traces_)
    for (const auto& [layer, change] : trace.changes)
      if (trace.outlier.massive && change.all() / change.n > kMassive) layers.insert(layer);
  return layers;
}

std::vector<Outlier> Outliers::list() const {
  std::vector<Outlier> outliers;
  for (const auto& [ignored, trace] : traces_) {
    Outlier& o = outliers.emplace_back(trace.outlier);
    o.n_place = static_cast<int>(trace.places.size());
    std::set<int> prompts;
    for (const auto& [prompt, position] : trace.places) prompts.insert(prompt);
    o.n_prompt = static_cast<int>(prompts.size());
    name_changes(trace, o);
  }
  std::ranges::stable_sort(outliers, [](const Outlier& a, const Outlier& b) { return std::abs(a.value) > std::abs(b.value); });
  return outliers;
}

}  // namespace sinkscope::explain_run
