#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

// H2O (Zhang et al., 2306.14048): half of the budget for the last rows, half for those that received most attention
// from all queries so far.
class H2o : public Policy {
 public:
  explicit H2o(const Options& options) : options_(options) {}
  cache::Observe observe() const override { return {.n_last = 0, .all = true}; }
  Kept keep(const Crowded& c) const override {
    const int most = options_.budget - c.n_new;
    return each_head(c, [&](const cache::Head& head) {
      std::vector<float> scores = observed(head);
      prefer(scores, head, options_, std::max(0, options_.budget / 2 - c.n_new));
      return best(scores, most);
    });
  }

 private:
  Options options_;
};

}  // namespace

std::unique_ptr<Policy> h2o(const Options& options) { return std::make_unique<H2o>(options); }

}  // namespace sinkscope::policy
