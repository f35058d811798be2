#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

class Full : public Policy {
 public:
  Kept keep(const Crowded& c) const override {
    return each_head(c, [](const cache::Head& head) { return std::vector<bool>(head.n_row(), true); });
  }
};

}  // namespace

std::unique_ptr<Policy> full(const Options&) { return std::make_unique<Full>(); }

}  // namespace sinkscope::policy
