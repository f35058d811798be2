#include <limits>

#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

// StreamingLLM (Xiao et al., 2309.17453): the first rows, which are the sinks, and the last ones. Protected rows stay too.
class Streaming : public Policy {
 public:
  explicit Streaming(const Options& options) : options_(options) {}
  Kept keep(const Crowded& c) const override {
    const int most = options_.budget - c.n_new;
    return each_head(c, [&](const cache::Head& head) {
      if (options_.protect.empty()) return first_and_last(head.n_row(), options_.sinks, most);
      std::vector<float> age(head.n_row());
      for (int i = 0; i < head.n_row(); ++i) age[i] = i < options_.sinks ? std::numeric_limits<float>::infinity() : static_cast<float>(i);
      prefer(age, head, options_, 0);
      return best(age, most);
    });
  }

 private:
  Options options_;
};

}  // namespace

std::unique_ptr<Policy> streaming(const Options& options) { return std::make_unique<Streaming>(options); }

}  // namespace sinkscope::policy
