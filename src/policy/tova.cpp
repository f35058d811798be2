#include "policy/policy.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

// TOVA (Oren et al., 2401.06104): per layer, the rows that the newest query attends to most, mean over heads.
class Tova : public Policy {
 public:
  explicit Tova(const Options& options) : options_(options) {}
  cache::Observe observe() const override { return {.n_last = 1, .all = false}; }
  Kept keep(const Crowded& c) const override {
    const cache::Head& any = c.layer.heads[0];
    std::vector<float> mean(any.n_row());
    for (const cache::Head& head : c.layer.heads) {
      if (head.n_row() != any.n_row()) throw InputError("policy 'tova' needs a memory whose heads have the same rows; start a new one");
      const std::vector<float> scores = observed(head);
      for (size_t i = 0; i < mean.size(); ++i) mean[i] += scores[i];
    }
    prefer(mean, any, options_, 0);
    return Kept(c.layer.heads.size(), best(mean, options_.budget - c.n_new));
  }

 private:
  Options options_;
};

}  // namespace

std::unique_ptr<Policy> tova(const Options& options) { return std::make_unique<Tova>(options); }

}  // namespace sinkscope::policy
