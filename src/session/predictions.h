// What logits say of the next token.
#pragma once

#include <vector>

namespace sinkscope::session {

// A row of n logits as natural logarithms of probabilities; returns the index of the largest.
int log_probabilities(const float* logits, int n, std::vector<float>& to);

// KL divergence in nats between two such rows.
double divergence(const std::vector<float>& from, const std::vector<float>& to);

}  // namespace sinkscope::session
