// Matrix products of a layer by the weights' type: OpenBLAS, as the device uses it, beside ggml's own, on weights as a
// model of Qwen2.5-Coder-1.5B's width has them. Interleaved; the ratio is time with OpenBLAS over ggml's: below 1 the
// device is right to take the product.
#include <algorithm>
#include <chrono>
#include <vector>

#include <fmt/format.h>
#include <ggml-cpu.h>

#include "backend/graph_for_tests.h"
#include "backend/products.h"

namespace {

using namespace sinkscope;

constexpr int kThreads = 2, kRounds = 7, kIn = 1536, kRows = 4096;

double seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The CPU's buffer types, the ones that lay weights out anew first.
std::vector<ggml_backend_buffer_type_t> cpu_buffer_types() {
  std::vector<ggml_backend_buffer_type_t> types;
  ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
  const auto extra = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
      ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts"));
  for (ggml_backend_buffer_type_t* type = extra ? extra(cpu) : nullptr; type && *type; ++type) types.push_back(*type);
  types.push_back(ggml_backend_cpu_buffer_type());
  return types;
}

void compare(ggml_type type, int n_token) {
  std::mt19937 random(1);
  backend::Graph ours, theirs;
  ggml_tensor* product[2];
  ggml_backend_buffer_t weights[2];
  const char* where = "";
  for (const bool own : {true, false}) {
    backend::Graph& g = own ? ours : theirs;
    ggml_tensor* w = ggml_new_tensor_2d(g.context, type, kIn, kRows);
    ggml_tensor* x = ggml_new_tensor_2d(g.context, GGML_TYPE_F32, kIn, n_token);
    ggml_set_name(w, "weight");
    product[own] = ggml_mul_mat(g.context, w, x);
    ggml_build_forward_expand(g.graph, product[own]);
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    for (ggml_backend_buffer_type_t buffer_type : cpu_buffer_types()) {
      if (own && buffer_type != ggml_backend_cpu_buffer_type()) continue;
      weights[own] = ggml_backend_buft_alloc_buffer(buffer_type, ggml_backend_buft_get_alloc_size(buffer_type, w));
      ggml_backend_tensor_alloc(weights[own], w, ggml_backend_buffer_get_base(weights[own]));
      if (ggml_backend_dev_supports_op(cpu, product[own])) {
        if (!own) where = ggml_backend_buft_name(buffer_type);
        break;
      }
      ggml_backend_buffer_free(weights[own]);
      w->buffer = nullptr, w->data = nullptr, w->extra = nullptr;
    }
    g.allocate();
    backend::fill(w, random);
    backend::fill(x, random);
  }
  ggml_backend_t cpu = ggml_backend_cpu_init();
  ggml_backend_cpu_set_n_threads(cpu, kThreads);
  attention::Workspace work;
  std::vector<double> ratios;
  for (int round = 0; round <= kRounds; ++round) {
    const double blas = seconds([&] { backend::multiply(product[true], kThreads, work); });
    const double ggml = seconds([&] { ggml_backend_graph_compute(cpu, theirs.graph); });
    if (round > 0) ratios.push_back(blas / ggml);
  }
  std::sort(ratios.begin(), ratios.end());
  fmt::print("| {} | {} | {} | {:.2f} [{:.2f}, {:.2f}] |\n", ggml_type_name(type), where, n_token, ratios[kRounds / 2], ratios.front(),
             ratios.back());
  ggml_backend_free(cpu);
  for (ggml_backend_buffer_t buffer : weights) ggml_backend_buffer_free(buffer);
}

}  // namespace

int main() {
  ggml_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  fmt::print("| weights | ggml keeps them in | tokens | OpenBLAS / ggml [low, high] |\n|---|---|---|---|\n");
  for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0,
                               GGML_TYPE_Q5_1, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ4_NL,
                               GGML_TYPE_IQ4_XS, GGML_TYPE_MXFP4, GGML_TYPE_TQ2_0})
    for (const int n_token : {32, 512}) compare(type, n_token);
}
