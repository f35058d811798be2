#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

// The last rows, whatever the first ones were good for.
class Window : public Policy {
 public:
  explicit Window(const Options& options) : budget_(options.budget) {}
  std::vector<bool> kept(const cache::Head& head, int n_new) const override { return first_and_last(head.n_row(), 0, budget_ - n_new); }

 private:
  int budget_;
};

}  // namespace

std::unique_ptr<Policy> window(const Options& options) { return std::make_unique<Window>(options); }

}  // namespace sinkscope::policy
