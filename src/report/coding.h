// One byte for each number. Decoders: apps/report, and tests/report_test.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace sinkscope::report {

// Mean attention, 0 to 1: steps of the square root, fine where attention is small. What is not there is 0.
inline uint8_t alpha_code(float alpha) { return alpha > 0 ? static_cast<uint8_t>(std::lround(255 * std::sqrt(std::min(alpha, 1.0f)))) : 0; }
inline double alpha_of(uint8_t code) { return code / 255.0 * (code / 255.0); }

// One weight, 0 to 1: steps of the logarithm, from 1 down to 1/1024; 0 is below.
inline constexpr double kCodesPerOctave = 25.4;
inline uint8_t weight_code(float weight) {
  if (!(weight >= 1.0f / 1024)) return 0;
  return static_cast<uint8_t>(std::lround(255 + kCodesPerOctave * std::log2(std::min(weight, 1.0f))));
}
inline double weight_of(uint8_t code) { return code == 0 ? 0 : std::exp2((code - 255) / kCodesPerOctave); }

}  // namespace sinkscope::report
