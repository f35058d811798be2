// Which experts tokens are sent to, with which router scores, and how large what they return is.
#pragma once

#include <span>
#include <vector>

#include "sinkscope/hooks.h"

namespace sinkscope::measure {

struct ExpertRecord {
  int n_expert = 0, n_used = 0;         // 0: no mixture of experts in this layer
  std::vector<int> chosen;              // [n_token, n_used] of the present prompt
  std::vector<float> probability;       // [n_token, n_expert] of the router
  std::vector<float> largest_output;    // [n_expert] over all prompts: magnitude behind the down projection
};

// Reads the tensors ffn_moe_probs, ffn_moe_topk and ffn_moe_down (scaled and biased, where they are). Where a layer has a second
// mixture of experts (GroveMoE), the first is looked at.
class ExpertRecorder : public TensorHook {
 public:
  // Before each prompt.
  void start();
  std::span<const ExpertRecord> layers() const { return layers_; }

  bool wants(std::string_view name, int layer) override;
  void see(const TensorView& tensor) override;

 private:
  std::vector<ExpertRecord> layers_;
};

}  // namespace sinkscope::measure
