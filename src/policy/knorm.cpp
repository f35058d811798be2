#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

// Devoto et al., 2406.11430: the rows with the smallest norm of their key.
class KNorm : public Policy {
 public:
  explicit KNorm(const Options& options) : options_(options) {}
  Kept keep(const Crowded& c) const override {
    const int d = c.layer.storage->d_key;
    return each_head(c, [&](const cache::Head& head) {
      if (head.n_row() + c.n_new <= options_.budget) return std::vector<bool>(head.n_row(), true);
      const std::vector<float> keys = head.keys();
      std::vector<float> scores(head.n_row());
      for (size_t i = 0; i < keys.size(); ++i) scores[i / d] -= keys[i] * keys[i];
      prefer(scores, head, options_, 0);
      return best(scores, options_.budget - c.n_new);
    });
  }

 private:
  Options options_;
};

}  // namespace

std::unique_ptr<Policy> knorm(const Options& options) { return std::make_unique<KNorm>(options); }

}  // namespace sinkscope::policy
