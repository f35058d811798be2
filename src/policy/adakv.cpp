#include <algorithm>
#include <numeric>

#include "policy/snapkv.h"

namespace sinkscope::policy {
namespace {

constexpr double kFloor = 0.2;  // of the even share, which no head goes below

// AdaKV (Feng et al., 2407.11550) over SnapKV's scores: the heads of a layer compete for its rows.
class AdaKv : public SnapKv {
 public:
  using SnapKv::SnapKv;
  Kept keep(const Crowded& c) const override {
    const int n_head = static_cast<int>(c.layer.heads.size()), share = std::max(options_.budget - c.n_new, 0);
    const int least = std::max(static_cast<int>(kFloor * share), std::min(share, options_.window));
    struct Rival {
      float score;
      int head;
    };
    std::vector<std::vector<float>> all;
    std::vector<Rival> rivals;
    std::vector<int> budget(n_head);
    for (int h = 0; h < n_head; ++h) {
      all.push_back(scores(c.layer.heads[h]));
      std::vector<float> sorted = all.back();
      std::ranges::sort(sorted, std::greater<>());
      budget[h] = std::min(least, static_cast<int>(sorted.size()));
      for (size_t i = budget[h]; i < sorted.size(); ++i) rivals.push_back({sorted[i], h});
    }
    std::ranges::stable_sort(rivals, std::greater<>(), &Rival::score);
    const int64_t left = int64_t{share} * n_head - std::accumulate(budget.begin(), budget.end(), 0);
    for (int64_t i = 0; i < std::min(left, static_cast<int64_t>(rivals.size())); ++i) ++budget[rivals[i].head];
    Kept kept;
    for (int h = 0; h < n_head; ++h) kept.push_back(best(all[h], budget[h]));
    return kept;
  }
};

}  // namespace

std::unique_ptr<Policy> adakv(const Options& options) { return std::make_unique<AdaKv>(options); }

}  // namespace sinkscope::policy
