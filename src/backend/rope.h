// The rotation of queries and keys by their position (RoPE), read off ggml's own operation: so every scaling and layout
// is right that ggml knows.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include <ggml.h>

#include "cache/queries.h"

namespace sinkscope::backend {

struct Rope : cache::Rotation {
  bool hidden = false;  // there is one, but behind an operation that does not let turns through
};

// The rope operation that made these queries; null where there is none. `hidden` says whether something lies between that
// turned queries would not come through unchanged.
const ggml_tensor* rope_of(const ggml_tensor* queries, bool& hidden);

// Applies the operation to unit vectors at growing positions.
Rope read_rope(const ggml_tensor* rope);

// Of the attention operations of each layer.
class Ropes {
 public:
  const Rope& of(const ggml_tensor* attention, int layer);

 private:
  std::map<int, Rope> by_layer_;
};

}  // namespace sinkscope::backend
