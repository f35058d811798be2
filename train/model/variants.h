// How logits become weights: the attention variants, one table row each, with what is published of them.
#pragma once

#include <span>
#include <string>

#include <torch/types.h>

namespace sinkscope::train {

// What a layer has beside its projections; undefined tensors where its variant has none.
struct Learned {
  torch::Tensor sink_logit;         // [n_head]
  double clip_gamma = 0, clip_zeta = 1;  // of clipped softmax: not learned, but of the layer too
};

// Logits are scaled already, [n_batch, n_head, n_query, n_key]; `visible` [n_query, n_key] says which keys a query may see.
// Returns weights of the same shape, 0 where nothing may be seen. Rows need not sum to 1.
using Weigh = torch::Tensor (*)(const torch::Tensor& logits, const torch::Tensor& visible, const Learned& learned);

struct Variant {
  const char* name;
  Weigh weigh;
  // What a layer learns for it.
  bool sink_logit = false;        // a logit of each head
  bool key_bias = false, value_bias = false;  // a key and a value before the sequence; where only one is learned, the other is 0
  bool sink_token = false;        // an embedding before the sequence, of the whole model
  bool gate_head = false, gate_elem = false;  // sigmoid of a linear map of the normalised input, times the output before W_o
  // How a GGUF file of llama.cpp's `llama` can carry it: "" needs nothing, a kind stands in sinkscope.attention.kind; null: it cannot.
  const char* gguf = nullptr;
  const char *formula, *source;
};
std::span<const Variant> variants();
// Throws InternalError for names that are in no table.
const Variant& variant(const std::string& name);

}  // namespace sinkscope::train
