#include "policy/products.h"

#include <algorithm>

#include "attention/attend.h"

namespace sinkscope::policy {

std::vector<float> products(const attention::Kernels& kernels, const float* rows, int n_row, const float* matrix, size_t stride, int n, int d) {
  const int n_panel = (n + kernels.panel - 1) / kernels.panel, padded = n_panel * kernels.panel;
  attention::Workspace::Floats memory;
  float* panels = memory.get(static_cast<size_t>(padded) * d);
  std::fill_n(panels, static_cast<size_t>(padded) * d, 0.0f);
  kernels.pack_keys({.data = reinterpret_cast<const std::byte*>(matrix), .key_stride = stride * sizeof(float)}, 0, 0, 0, n, 0, d, panels, nullptr);
  std::vector<float> all(static_cast<size_t>(n_row) * padded), result(static_cast<size_t>(n_row) * n);
  kernels.scores(rows, n_row, d, panels, 0, n_panel, all.data(), padded);
  for (int r = 0; r < n_row; ++r) std::copy_n(all.data() + static_cast<size_t>(r) * padded, n, result.data() + static_cast<size_t>(r) * n);
  return result;
}

}  // namespace sinkscope::policy
