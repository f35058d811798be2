// From a node of ggml's graph to an attention call.
#pragma once

#include <optional>
#include <string>

#include <ggml.h>

#include "attention/call.h"

namespace sinkscope::backend {

// Why the device cannot take this attention operation; nothing: it can.
std::optional<std::string> reason_against(const ggml_tensor* node);

// The operation as spans over ggml's memory. `node` is one that reason_against() has nothing against.
attention::Call call_of(const ggml_tensor* node);

// The layer of graph node `index`, from the names that llama.cpp gives: the output's ("kqv_out-7"), else the cache
// under K ("cache_k_l7"). The first is the better one: layers may share a cache. -1 when neither is there.
int layer_of(const ggml_cgraph* graph, int index);

}  // namespace sinkscope::backend
