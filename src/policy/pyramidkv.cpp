#include <algorithm>

#include "policy/snapkv.h"

namespace sinkscope::policy {
namespace {

constexpr double kBeta = 20;  // the last layer's share is 1 / beta of the mean

// PyramidKV (Cai et al., 2406.02069): SnapKV with budgets that fall linearly from the first layer to the last.
class PyramidKv : public SnapKv {
 public:
  using SnapKv::SnapKv;
  Kept keep(const Crowded& c) const override {
    const double mean = options_.budget - options_.window, least = mean / kBeta, most = 2 * mean - least;
    const double depth = c.n_layer > 1 ? static_cast<double>(c.index) / (c.n_layer - 1) : 0.5;
    const int64_t budget = options_.window + static_cast<int64_t>(most + (least - most) * depth);
    return each_head(c, [&](const cache::Head& head) { return best(scores(head), budget - c.n_new); });
  }
};

}  // namespace

std::unique_ptr<Policy> pyramidkv(const Options& options) {
  const int least = options.window + static_cast<int>((options.budget - options.window) / kBeta);
  check_room(least, options);
  return std::make_unique<PyramidKv>(options);
}

}  // namespace sinkscope::policy
