#include "session/predictions.h"

#include <algorithm>
#include <cmath>

namespace sinkscope::session {

int log_probabilities(const float* logits, int n, std::vector<float>& to) {
  to.assign(logits, logits + n);
  const int top = static_cast<int>(std::max_element(to.begin(), to.end()) - to.begin());
  double sum = 0;
  for (const float x : to) sum += std::exp(x - to[top]);
  const float shift = to[top] + static_cast<float>(std::log(sum));
  for (float& x : to) x -= shift;
  return top;
}

double divergence(const std::vector<float>& from, const std::vector<float>& to) {
  double sum = 0;
  for (size_t i = 0; i < from.size(); ++i) sum += std::exp(from[i]) * (from[i] - to[i]);
  return sum;
}

}  // namespace sinkscope::session
