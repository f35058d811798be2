#include "backend/products.h"

#include <algorithm>

#include <cblas.h>

#include "attention/team.h"

namespace sinkscope::backend {
namespace {

constexpr int kRowsPerBlock = 96;  // decoded weights of a block: near the cache, and enough work for OpenBLAS

constexpr int kManyTokens = 32;    // what makes a product long

// The other types ggml multiplies as they are or in 8-bit integers, several rows at a time (docs/performance.md).
bool faster_by_openblas(ggml_type weights) {
  return weights == GGML_TYPE_F32 || weights == GGML_TYPE_Q4_1 || weights == GGML_TYPE_Q5_1;
}

}  // namespace

bool takes(Products products, const ggml_tensor* node) {
  if (products == Products::none || node->op != GGML_OP_MUL_MAT) return false;
  if (products == Products::where_faster && (node->ne[1] < kManyTokens || !faster_by_openblas(node->src[0]->type))) return false;
  const ggml_tensor *w = node->src[0], *x = node->src[1];
  const bool decodable = w->type == GGML_TYPE_F32 || ggml_get_type_traits(w->type)->to_float;
  const bool fast_path_of_cpu = node->op_params[1] == GGML_HINT_SRC0_IS_HADAMARD;
  return decodable && !fast_path_of_cpu && x->type == GGML_TYPE_F32 && ggml_is_contiguous(w) && ggml_is_contiguous(x) &&
         ggml_is_contiguous(node);
}

void multiply(const ggml_tensor* node, int n_thread, attention::Workspace& work) {
  const ggml_tensor *w = node->src[0], *x = node->src[1];
  const int n_in = static_cast<int>(w->ne[0]), n_row = static_cast<int>(w->ne[1]), n_token = static_cast<int>(x->ne[1]);
  const int n_block = (n_row + kRowsPerBlock - 1) / kRowsPerBlock;
  const int n_plane = static_cast<int>(x->ne[2] * x->ne[3]);
  if (n_token == 0) return;
  work.make_room_for(n_thread);
  openblas_set_num_threads(1);
  attention::run_tasks(n_plane * n_block, n_thread, [&](int task, int thread) {
    const int64_t i2 = task / n_block % x->ne[2], i3 = task / n_block / x->ne[2];
    const int first = task % n_block * kRowsPerBlock, n = std::min(kRowsPerBlock, n_row - first);
    // Fewer planes of weights than of activations are repeated.
    const char* rows = static_cast<const char*>(w->data) + first * w->nb[1] + i2 / (x->ne[2] / w->ne[2]) * w->nb[2] +
                       i3 / (x->ne[3] / w->ne[3]) * w->nb[3];
    const float* decoded = reinterpret_cast<const float*>(rows);
    if (w->type != GGML_TYPE_F32) {
      float* scratch = work.of_thread[thread].get(static_cast<size_t>(kRowsPerBlock) * n_in);
      ggml_get_type_traits(w->type)->to_float(rows, scratch, static_cast<int64_t>(n) * n_in);
      decoded = scratch;
    }
    const auto plane = [&](const ggml_tensor* t) {
      return reinterpret_cast<float*>(static_cast<char*>(t->data) + i2 * t->nb[2] + i3 * t->nb[3]);
    };
    product(n_token, n, n_in, plane(x), decoded, plane(node) + first, n_row);
  });
}

void product(int n_token, int n_row, int n_in, const float* x, const float* w, float* out, int out_stride) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n_token, n_row, n_in, 1, x, n_in, w, n_in, 0, out, out_stride);
}

}  // namespace sinkscope::backend
