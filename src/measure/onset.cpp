#include "measure/onset.h"

#include <algorithm>

namespace sinkscope::measure {

int onset(std::span<const double> alpha, std::span<const double> uniform_alpha) {
  int from = -1;
  for (size_t i = 1; i < alpha.size(); ++i) {
    const bool above = alpha[i] > kOnsetRatio * std::max(alpha[0], uniform_alpha[i]);
    if (!above) from = -1;
    else if (from < 0) from = static_cast<int>(i);
  }
  return from;
}

}  // namespace sinkscope::measure
