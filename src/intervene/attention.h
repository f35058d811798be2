// Edits of attention: what the kernel is told before each operation.
#pragma once

#include <span>
#include <vector>

#include "backend/device.h"
#include "intervene/edit.h"

namespace sinkscope::intervene {

class AttentionEdits : public backend::CallHook {
 public:
  // Edits of other kinds are passed over. Throws InputError for a file of logits that does not fit `shape`.
  AttentionEdits(std::span<const Edit> edits, const Shape& shape, const attention::Kernels& kernels, uint32_t seed);

  void before(attention::Call& call, const std::function<void(Probe&)>& compute) override;

 private:
  // Keys of each head whose mean weight is above the threshold, the first left out.
  std::vector<std::vector<int>> strong_keys(const Edit& edit, const attention::Call& call, const std::function<void(Probe&)>& compute) const;

  std::vector<Edit> edits_;
  std::vector<std::vector<float>> sink_logits_;   // [edit] of sink_logits: [n_layer, n_head]
  int n_head_;
  const attention::Kernels& kernels_;
  uint32_t seed_;
  // Of the present operation.
  std::vector<attention::HeadEdit> heads_;
  std::vector<std::vector<float>> bias_, logits_; // [n_head][n_key], [n_head][1]
  std::vector<std::vector<int>> calmed_;          // [n_head]
};

}  // namespace sinkscope::intervene
