#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

class Full : public Policy {
 public:
  std::vector<bool> kept(const cache::Head& head, int) const override { return std::vector<bool>(head.n_row(), true); }
};

}  // namespace

std::unique_ptr<Policy> full(const Options&) { return std::make_unique<Full>(); }

}  // namespace sinkscope::policy
