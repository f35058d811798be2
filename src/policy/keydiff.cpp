#include <cmath>

#include "policy/policy.h"

namespace sinkscope::policy {
namespace {

// KeyDiff (Park et al., 2504.15364): the rows whose key is least like the mean of all normalised keys.
class KeyDiff : public Policy {
 public:
  explicit KeyDiff(const Options& options) : options_(options) {}
  Kept keep(const Crowded& c) const override {
    const int d = c.layer.storage->d_key;
    return each_head(c, [&](const cache::Head& head) {
      if (head.n_row() + c.n_new <= options_.budget) return std::vector<bool>(head.n_row(), true);
      std::vector<float> keys = head.keys();
      std::vector<double> mean(d);
      for (int row = 0; row < head.n_row(); ++row) {
        float* key = keys.data() + static_cast<size_t>(row) * d;
        double square = 0;
        for (int i = 0; i < d; ++i) square += double{key[i]} * key[i];
        const auto inverse = static_cast<float>(1 / std::max(std::sqrt(square), 1e-12));
        for (int i = 0; i < d; ++i) mean[i] += key[i] *= inverse;
      }
      // The mean's length does not change the order.
      std::vector<float> scores(head.n_row());
      for (int row = 0; row < head.n_row(); ++row) {
        double likeness = 0;
        for (int i = 0; i < d; ++i) likeness += mean[i] * keys[static_cast<size_t>(row) * d + i];
        scores[row] = static_cast<float>(-likeness);
      }
      prefer(scores, head, options_, 0);
      return best(scores, options_.budget - c.n_new);
    });
  }

 private:
  Options options_;
};

}  // namespace

std::unique_ptr<Policy> keydiff(const Options& options) { return std::make_unique<KeyDiff>(options); }

}  // namespace sinkscope::policy
