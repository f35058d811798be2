// A small graph of ggml on the CPU's buffers, filled at random.
#pragma once

#include <algorithm>
#include <random>
#include <vector>

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

namespace sinkscope::backend {

struct Graph {
  ggml_context* context = ggml_init({.mem_size = 1 << 20, .mem_buffer = nullptr, .no_alloc = true});
  ggml_cgraph* graph = ggml_new_graph(context);
  ggml_backend_buffer_t buffer = nullptr;
  ~Graph() {
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
  }
  void allocate() { buffer = ggml_backend_alloc_ctx_tensors_from_buft(context, ggml_backend_cpu_buffer_type()); }
};

inline void fill(ggml_tensor* t, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(ggml_nelements(t));
  for (float& v : values) v = normal(random);
  std::vector<char> bytes(ggml_nbytes(t));
  ggml_quantize_chunk(t->type, values.data(), bytes.data(), 0, ggml_nelements(t) / t->ne[0], t->ne[0], nullptr);
  if (t->type == GGML_TYPE_F32) std::copy_n(reinterpret_cast<const char*>(values.data()), bytes.size(), bytes.data());
  ggml_backend_tensor_set(t, bytes.data(), 0, bytes.size());
}

}  // namespace sinkscope::backend
