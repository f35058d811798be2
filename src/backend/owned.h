// Attention over owned memory: llama.cpp's cache holds the batch alone, and is emptied after it.
#pragma once

#include <optional>
#include <vector>

#include "attention/attend.h"
#include "backend/rope.h"
#include "cache/memory.h"
#include "cache/observer.h"

namespace sinkscope::backend {

// Where a kept key stands for the model.
enum class Positions {
  cache,           // rows stand side by side before the batch (StreamingLLM, 2309.17453)
  cache_or_gaps,   // the same, unless the model's keys cannot be turned
  gaps,            // every row stands where it was
};

class OwnedMemory {
 public:
  // `window`, by layer: the keys that a query sees, itself included; 0: all.
  OwnedMemory(cache::Memory memory, Positions positions, std::vector<int> window, const attention::Kernels& kernels, cache::Observe observe)
      : memory_(std::move(memory)), positions_(positions), window_(std::move(window)), observes_queries_(observe.queries) {
    if (observe.any()) observer_.emplace(kernels, observe);
  }

  cache::Memory& memory() { return memory_; }
  int window(int layer) const { return layer < static_cast<int>(window_.size()) ? window_[layer] : 0; }

  // Computes an operation on the batch's own keys over the kept ones too, and keeps the batch's rows. `node` is the
  // operation in llama.cpp's graph, `call` what it says.
  void attend(const ggml_tensor* node, attention::Call call, std::span<Probe* const> probes, const attention::Kernels& kernels,
              int n_thread, attention::Workspace& work, attention::Way way);

 private:
  struct Axis;
  class Turning;
  Axis axis_of(const attention::Call& call, const cache::Layer& layer, bool with_stands, Turning& turning) const;
  std::vector<uint16_t> mask_of(const attention::Call& call, const Axis& axis, int n_plane) const;
  // For models whose keys cannot be turned: they stand where they were. Throws InputError where they are not to.
  void stay();
  void observe_queries(const attention::Call& call, cache::Layer& layer, const Rope& rope) const;
  // The batch's rows join the memory.
  void keep(const attention::Call& call, cache::Layer& layer, const attention::Kernels& kernels);

  cache::Memory memory_;
  Positions positions_;
  std::vector<int> window_;
  std::optional<cache::Observer> observer_;  // for policies that choose by attention
  bool observes_queries_;
  Ropes ropes_;
};

}  // namespace sinkscope::backend
