// W_o of a model's layers as floats, read from its file: llama.cpp keeps some weights in an order of its own.
#pragma once

#include <functional>

#include "policy/policy.h"
#include "session/model.h"

namespace sinkscope::session {

// By layer, read anew each time. Throws InputError where the file has no such tensor.
std::function<policy::Projection(int layer)> output_projection(const Model::Impl& model);

}  // namespace sinkscope::session
