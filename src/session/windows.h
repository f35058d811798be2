// What llama.cpp's public interface does not tell: which layers slide, and how far.
#pragma once

#include <vector>

#include "sinkscope/session.h"

namespace sinkscope {

// By layer: the number of keys that a query sees, itself included; 0: all. Throws InputError for windows that are cut
// into chunks (Llama 4).
std::vector<int> windows(const Model::Impl& model);

// Positions are rows of a table that was learned (GPT-2): there are so many and no more, and they cannot be moved.
bool has_learned_positions(const Model::Impl& model);

}  // namespace sinkscope
