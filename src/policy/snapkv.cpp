#include "policy/snapkv.h"

namespace sinkscope::policy {

constexpr int kNeighbours = 2;  // on either side: a kernel of 5

std::vector<float> SnapKv::smoothed_scores(const cache::Head& head) { return smoothed(observed(head), kNeighbours); }

std::vector<float> SnapKv::scores(const cache::Head& head) const {
  std::vector<float> scores = smoothed_scores(head);
  prefer(scores, head, options_, options_.window);
  return scores;
}

Kept SnapKv::keep(const Crowded& c) const {
  return each_head(c, [&](const cache::Head& head) { return best(scores(head), options_.budget - c.n_new); });
}

std::unique_ptr<Policy> snapkv(const Options& options) { return std::make_unique<SnapKv>(options); }

}  // namespace sinkscope::policy
