// SnapKV's scores, on which others build.
#pragma once

#include "policy/policy.h"

namespace sinkscope::policy {

// SnapKV (Li et al., 2404.14469): attention of the last `window` queries, averaged over 5 neighbouring rows; the last
// `window` rows win over all.
class SnapKv : public Policy {
 public:
  explicit SnapKv(const Options& options) : options_(options) {}
  cache::Observe observe() const override { return {.n_last = options_.window, .all = false}; }
  Kept keep(const Crowded& c) const override;

 protected:
  static std::vector<float> smoothed_scores(const cache::Head& head);
  std::vector<float> scores(const cache::Head& head) const;
  Options options_;
};

}  // namespace sinkscope::policy
