#include "session/blas_check.h"

#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "backend/products.h"

namespace sinkscope::session {
namespace {

// Sizes that reach the blocked kernels and their edges.
struct Shape {
  int n_in, n_row, n_token;
};
constexpr Shape kShapes[] = {{64, 64, 64}, {131, 67, 97}, {384, 192, 48}, {192, 96, 1}};
constexpr double kTolerance = 1e-4;  // of the root mean square; float32 gives about 1e-6

// The largest difference over the root mean square of the plain product.
double difference(Shape s) {
  const auto filled = [](size_t n, uint32_t seed) {
    std::vector<float> values(n);
    for (float& v : values) v = static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1;
    return values;
  };
  const std::vector<float> w = filled(static_cast<size_t>(s.n_row) * s.n_in, 1);
  const std::vector<float> x = filled(static_cast<size_t>(s.n_token) * s.n_in, 2);
  std::vector<float> got(static_cast<size_t>(s.n_token) * s.n_row);
  backend::product(s.n_token, s.n_row, s.n_in, x.data(), w.data(), got.data(), s.n_row);

  double largest = 0, squares = 0;
  for (int t = 0; t < s.n_token; ++t)
    for (int r = 0; r < s.n_row; ++r) {
      double want = 0;
      for (int i = 0; i < s.n_in; ++i) want += double{w[r * s.n_in + i]} * x[t * s.n_in + i];
      const double off = std::abs(got[t * s.n_row + r] - want);
      largest = std::isnan(off) ? HUGE_VAL : std::max(largest, off);
      squares += want * want;
    }
  return largest / std::sqrt(squares / (static_cast<double>(s.n_row) * s.n_token));
}

std::string check() {
  double largest = 0;
  for (const Shape s : kShapes) largest = std::max(largest, difference(s));
  if (largest <= kTolerance) return "";
  return fmt::format("OpenBLAS computes wrongly on this processor (a small product is off by {:.2g} of its size); matrix "
                     "products run without it, slower but right", largest);
}

}  // namespace

const std::string& blas_failure() {
  static const std::string failure = check();
  return failure;
}

}  // namespace sinkscope::session
