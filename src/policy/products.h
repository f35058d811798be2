// Matrix products by the kernel that multiplies queries and keys.
#pragma once

#include <vector>

#include "attention/kernels.h"

namespace sinkscope::policy {

// rows [n_row, d] . matrix^T, [n_row, n]: `matrix` has n rows of d floats, `stride` floats apart.
std::vector<float> products(const attention::Kernels& kernels, const float* rows, int n_row, const float* matrix, size_t stride, int n, int d);

}  // namespace sinkscope::policy
