#include "explain/expert_uses.h"

#include <algorithm>

namespace sinkscope::explain_run {

void ExpertUses::add(std::span<const measure::ExpertRecord> layers, const std::vector<bool>& is_sink) {
  const size_t n_token = is_sink.size();
  const auto n_sink = std::ranges::count(is_sink, true);
  n_sink_ += n_sink;
  n_other_ += static_cast<int64_t>(n_token) - n_sink;
  tallies_.resize(std::max(tallies_.size(), layers.size()));
  for (size_t l = 0; l < layers.size(); ++l) {
    const measure::ExpertRecord& r = layers[l];
    if (r.chosen.size() != n_token * r.n_used || r.probability.size() != n_token * r.n_expert) continue;
    tallies_[l].resize(r.n_expert);
    for (size_t i = 0; i < n_token; ++i) {
      for (int u = 0; u < r.n_used; ++u) {
        Tally& tally = tallies_[l][r.chosen[i * r.n_used + u]];
        (is_sink[i] ? tally.sinks : tally.others) += 1;
      }
      for (int e = 0; e < r.n_expert; ++e) (is_sink[i] ? tallies_[l][e].sink_weight : tallies_[l][e].other_weight) += r.probability[i * r.n_expert + e];
    }
  }
}

std::vector<ExpertUse> ExpertUses::list(std::span<const measure::ExpertRecord> layers, const std::set<int>& forming) const {
  std::vector<float> all;
  for (const measure::ExpertRecord& layer : layers) all.insert(all.end(), layer.largest_output.begin(), layer.largest_output.end());
  if (all.empty()) return {};
  std::ranges::sort(all);
  const double high = all[static_cast<size_t>(0.995 * static_cast<double>(all.size() - 1))], most = all.back();
  const double n_sink = static_cast<double>(std::max<int64_t>(n_sink_, 1)), n_other = static_cast<double>(std::max<int64_t>(n_other_, 1));
  std::vector<ExpertUse> uses;
  for (size_t l = 0; l < tallies_.size(); ++l) {
    const bool forms = forming.contains(static_cast<int>(l));
    for (size_t e = 0; e < tallies_[l].size(); ++e) {
      const Tally& t = tallies_[l][e];
      const double largest = layers[l].largest_output[e];
      const ExpertUse use{.layer = static_cast<int>(l), .expert = static_cast<int>(e), .sink_share = t.sinks / n_sink, .other_share = t.others / n_other,
                          .sink_weight = t.sink_weight / n_sink, .other_weight = t.other_weight / n_other, .largest_output = largest,
                          .is_super = forms && largest >= high && largest > most / 10};
      if (use.is_super || use.sink_share > 0) uses.push_back(use);
    }
  }
  return uses;
}

}  // namespace sinkscope::explain_run
