// Matrix products by OpenBLAS: the rest of a layer's arithmetic, beside attention.
//
// The output is cut into blocks of weight rows that depend on the shape alone, and one thread computes a block: the
// same bits for any number of threads. (OpenBLAS's own threads, which ggml's BLAS device uses, cut by their number and
// add in another order then.)
#pragma once

#include <ggml.h>

#include "attention/attend.h"

namespace sinkscope::backend {

// Which products the device takes from llama.cpp.
enum class Products {
  none,
  where_faster,  // long ones, of weights whose type ggml multiplies more slowly (bench/products.cpp measures it)
  every,         // short ones too, so that a result does not depend on how a prompt is cut
};

// Whether the device takes the node: a product of float activations and weights that ggml can decode.
bool takes(Products products, const ggml_tensor* node);

// Computes a node that takes() agrees to.
void multiply(const ggml_tensor* node, int n_thread, attention::Workspace& work);

// One OpenBLAS call: out[t][r] = x[t] . w[r], with x [n_token, n_in], w [n_row, n_in], out [n_token, out_stride].
void product(int n_token, int n_row, int n_in, const float* x, const float* w, float* out, int out_stride);

}  // namespace sinkscope::backend
