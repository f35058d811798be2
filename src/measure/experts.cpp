#include "measure/experts.h"

#include <algorithm>
#include <cmath>

namespace sinkscope::measure {

void ExpertRecorder::start() {
  for (ExpertRecord& layer : layers_) layer.chosen.clear(), layer.probability.clear();
}

bool ExpertRecorder::wants(std::string_view name, int layer) {
  return layer >= 0 && (name == "ffn_moe_probs" || name == "ffn_moe_topk" || name == "ffn_moe_down" || name == "ffn_moe_down_scaled" || name == "ffn_moe_down_biased");
}

void ExpertRecorder::see(const TensorView& t) {
  if (t.nth > 0) return;
  if (t.layer >= static_cast<int>(layers_.size())) layers_.resize(t.layer + 1);
  ExpertRecord& layer = layers_[t.layer];
  if (t.name == "ffn_moe_probs") {
    layer.n_expert = static_cast<int>(t.n[0]);
    layer.largest_output.resize(layer.n_expert);
    for (int64_t i = 0; i < t.n[1]; ++i) layer.probability.insert(layer.probability.end(), t.row(i), t.row(i) + t.n[0]);
  } else if (t.name == "ffn_moe_topk") {
    layer.n_used = static_cast<int>(t.n[0]);
    for (int64_t i = 0; i < t.n[1]; ++i) layer.chosen.insert(layer.chosen.end(), t.integer_row(i), t.integer_row(i) + t.n[0]);
  } else if (const auto n = static_cast<size_t>(t.n[1] * t.n[2]); layer.chosen.size() >= n) {
    // [n_embd, n_used, n_token] of the batch whose experts were chosen last.
    const int* chosen = layer.chosen.data() + (layer.chosen.size() - n);
    for (int64_t token = 0; token < t.n[2]; ++token)
      for (int64_t used = 0; used < t.n[1]; ++used) {
        float& largest = layer.largest_output[chosen[token * t.n[1] + used]];
        for (int64_t d = 0; d < t.n[0]; ++d) largest = std::max(largest, std::abs(t.row(used, token)[d]));
      }
  }
}

}  // namespace sinkscope::measure
