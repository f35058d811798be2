#include "session/blas_check.h"

#include <cmath>
#include <memory>
#include <vector>

#include <fmt/format.h>
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

namespace sinkscope::session {
namespace {

// Sizes that reach the blocked kernels and their edges.
struct Shape {
  int n_inner, n_row, n_column;
};
constexpr Shape kShapes[] = {{64, 64, 64}, {131, 67, 97}, {384, 192, 48}};
constexpr double kTolerance = 1e-4;  // of the root mean square; float32 gives about 1e-6

template <auto kFree>
struct Freed {
  template <class T>
  void operator()(T* p) const { kFree(p); }
};
using Context = std::unique_ptr<ggml_context, Freed<ggml_free>>;
using Backend = std::unique_ptr<ggml_backend, Freed<ggml_backend_free>>;
using Buffer = std::unique_ptr<ggml_backend_buffer, Freed<ggml_backend_buffer_free>>;

// The largest difference over the root mean square of the plain product.
double difference(ggml_backend_t backend, Shape s) {
  const Context context(ggml_init({.mem_size = ggml_tensor_overhead() * 8 + ggml_graph_overhead(),
                                   .mem_buffer = nullptr, .no_alloc = true}));
  ggml_tensor* a = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, s.n_inner, s.n_row);
  ggml_tensor* b = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, s.n_inner, s.n_column);
  ggml_tensor* product = ggml_mul_mat(context.get(), a, b);
  ggml_cgraph* graph = ggml_new_graph(context.get());
  ggml_build_forward_expand(graph, product);
  const Buffer buffer(ggml_backend_alloc_ctx_tensors(context.get(), backend));

  const auto fill = [](ggml_tensor* t, uint32_t seed) {
    std::vector<float> values(ggml_nelements(t));
    for (float& v : values) v = static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1;
    ggml_backend_tensor_set(t, values.data(), 0, ggml_nbytes(t));
    return values;
  };
  const std::vector<float> x = fill(a, 1), y = fill(b, 2);
  if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) return HUGE_VAL;
  std::vector<float> got(ggml_nelements(product));
  ggml_backend_tensor_get(product, got.data(), 0, ggml_nbytes(product));

  double largest = 0, squares = 0;
  for (int c = 0; c < s.n_column; ++c)
    for (int r = 0; r < s.n_row; ++r) {
      double want = 0;
      for (int i = 0; i < s.n_inner; ++i) want += double{x[r * s.n_inner + i]} * y[c * s.n_inner + i];
      const double off = std::abs(got[c * s.n_row + r] - want);
      largest = std::isnan(off) ? HUGE_VAL : std::max(largest, off);
      squares += want * want;
    }
  return largest / std::sqrt(squares / (s.n_row * s.n_column));
}

std::string check() {
  ggml_backend_dev_t device = ggml_backend_dev_by_name("BLAS");
  if (!device) return "";
  const Backend backend(ggml_backend_dev_init(device, nullptr));
  double largest = 0;
  for (const Shape s : kShapes) largest = std::max(largest, difference(backend.get(), s));
  if (largest <= kTolerance) return "";
  return fmt::format("{} computes wrongly on this processor (a small product is off by {:.2g} of its size); "
                     "matrix products run without it, slower but right",
                     ggml_backend_dev_description(device), largest);
}

}  // namespace

const std::string& blas_failure() {
  static const std::string failure = check();
  return failure;
}

}  // namespace sinkscope::session
