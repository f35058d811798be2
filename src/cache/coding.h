// How keys and values become bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "attention/kernels.h"

namespace sinkscope::cache {

// A --kv-type. Figures: docs/streaming.md.
enum class Precision : uint8_t { f32, f16, q8_0, q4_0, q8c, q4c };

// How rows of a precision lie. Where `settles`, rows come as F16, and a block of them is coded when newer rows begin another.
struct Coding {
  const char* name;
  attention::Element key, value;
  bool settles;
};
const Coding& coding(Precision precision);

// Throws UsageError where no precision has this name.
Precision precision(const std::string& name);

// Bytes of a row of d numbers; d is a multiple of 32 but for f32 and f16.
size_t row_bytes(attention::Element element, int d);
inline bool has_channels(attention::Element e) { return e == attention::Element::q8_channel || e == attention::Element::q4_channel; }

// Rows [n_row, d] of floats as the element has them. `channels`, [d], is written where there are any.
void encode(const attention::Kernels& kernels, attention::Element element, const float* rows, int n_row, int d, std::byte* to, attention::Grid* channels);

}  // namespace sinkscope::cache
