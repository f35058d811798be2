#include <fmt/format.h>

#include "policy/policy.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

// StreamingLLM (Xiao et al., 2309.17453): the first rows, which are the sinks, and the last ones.
class Streaming : public Policy {
 public:
  explicit Streaming(const Options& options) : options_(options) {}
  std::vector<bool> kept(const cache::Head& head, int n_new) const override {
    return first_and_last(head.n_row(), options_.sinks, options_.budget - n_new);
  }

 private:
  Options options_;
};

}  // namespace

std::unique_ptr<Policy> streaming(const Options& options) {
  if (options.sinks >= options.budget)
    throw UsageError(fmt::format("{} sinks leave no room in a budget of {} rows; give a larger --budget or fewer --sinks", options.sinks, options.budget));
  return std::make_unique<Streaming>(options);
}

}  // namespace sinkscope::policy
