// Column sums and maxima of one operation, kept apart by slot until they are added in a fixed order.
#pragma once

#include <algorithm>
#include <vector>

#include "attention/kernels.h"
#include "sinkscope/probe.h"

namespace sinkscope::attention {

class ColumnSlots {
 public:
  explicit ColumnSlots(const Kernels& kernels) : kernels_(kernels) {}

  void begin(const AttentionShape& shape) {
    slots_per_head_ = shape.slots_per_head;
    n_key_ = shape.n_key;
    sum_.assign(static_cast<size_t>(shape.n_slot) * n_key_, 0);
    largest_.assign(sum_.size(), 0);
  }

  void see(const Tile& tile) {
    const size_t at = static_cast<size_t>(tile.slot) * n_key_;
    kernels_.add_columns(tile, sum_.data() + at, largest_.data() + at);
  }

  // Adds what one of the heads that come together has got on its first n_key keys, and forgets it. `largest` may be null.
  template <class Real>
  void take(int head_of_group, int n_key, Real* sum, float* largest) {
    const size_t first = static_cast<size_t>(head_of_group) * slots_per_head_ * n_key_;
    for (int k = 0; k < n_key; ++k) {
      double added = 0;
      for (int part = 0; part < slots_per_head_; ++part) {
        const size_t at = first + static_cast<size_t>(part) * n_key_ + k;
        added += sum_[at];
        if (largest) largest[k] = std::max(largest[k], largest_[at]);
      }
      sum[k] = static_cast<Real>(sum[k] + added);
    }
    const size_t n = static_cast<size_t>(slots_per_head_) * n_key_;
    std::fill_n(sum_.begin() + first, n, 0.0f);
    std::fill_n(largest_.begin() + first, n, 0.0f);
  }

 private:
  const Kernels& kernels_;
  int slots_per_head_ = 0, n_key_ = 0;
  std::vector<float> sum_, largest_;  // [n_slot, n_key]
};

}  // namespace sinkscope::attention
