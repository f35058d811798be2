#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

// The last rows, whatever the first ones were good for.
class Window : public Policy {
 public:
  explicit Window(const Options& options) : options_(options) {}
  Kept keep(const Crowded& c) const override {
    return each_head(c, [&](const cache::Head& head) { return first_and_last(head.n_row(), 0, options_.budget - c.n_new); });
  }

 private:
  Options options_;
};

}  // namespace

std::unique_ptr<Policy> window(const Options& options) { return std::make_unique<Window>(options); }

}  // namespace sinkscope::policy
