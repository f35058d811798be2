// Attention that llama.cpp's architectures lack and our device has: sinkscope.attention.* in a model's metadata.
#pragma once

#include "backend/device.h"
#include "session/model.h"

namespace sinkscope::session {

// Of sinkscope.attention.kind, a text: the keys that it needs are JSON arrays as text, [layer] of numbers in any nesting (llama.cpp
// does not load files with tensors that it does not know).
//
//   off-by-one    a learned sink whose logit is 0 (Xiao et al., 2309.17453)
//   sink-logits   sinkscope.attention.sink_logits, [layer][head] (gpt-oss)
//   kv-bias       sinkscope.attention.key_bias, .value_bias, [layer][KV head][d]: before the sequence; where one is missing it is 0
//                 (Sun et al., 2402.17762)
//   sigmoid       each weight is sigmoid(logit)
//
// Throws InputError for other kinds and shapes.
backend::AttentionKind attention_kind(const Model::Impl& model);

}  // namespace sinkscope::session
