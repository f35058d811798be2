// Where sinks set in on a curve over training: one rule, for the trainer's telemetry and for checkpoints of others.
#pragma once

#include <span>

namespace sinkscope::measure {

// Alpha of the first token against the larger of what the curve's first point has (the untrained model) and uniform attention gives.
inline constexpr double kOnsetRatio = 1.5;

// The first point from which on alpha stays more than kOnsetRatio times above. -1: none. Both are by point, of the same length.
int onset(std::span<const double> alpha, std::span<const double> uniform_alpha);

}  // namespace sinkscope::measure
