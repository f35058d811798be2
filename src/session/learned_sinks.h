// Attention that llama.cpp's architectures lack and our device has: sinkscope.attention.* in a model's metadata.
#pragma once

#include <vector>

#include "session/model.h"

namespace sinkscope::session {

// sinkscope.attention.kind: "off-by-one" (a learned sink whose logit is 0, Xiao et al., 2309.17453) or "sink-logits" with
// sinkscope.attention.sink_logits, a JSON array [layer][head] as text. [layer][head] logits, empty for models without. Throws
// InputError for other kinds and shapes.
std::vector<std::vector<float>> learned_sinks(const Model::Impl& model);

}  // namespace sinkscope::session
