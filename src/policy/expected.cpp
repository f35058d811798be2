#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/policy.h"
#include "policy/products.h"

namespace sinkscope::policy {
namespace {

constexpr int kFuture = 512;     // positions whose rotations are averaged
constexpr double kEpsilon = 0;   // of the attention that is foreseen, as the authors' program has it

// Expected Attention (Devoto et al., 2510.00636): if queries go on as they were, with this mean and covariance, how much will
// they attend to each row, and how long is its value?
class Expected : public Policy {
 public:
  explicit Expected(const Options& options) : options_(options) {}
  cache::Observe observe() const override { return {.queries = true}; }
  Kept keep(const Crowded& c) const override {
    int head_kv = 0;
    return each_head(c, [&](const cache::Head& head) {
      const int h = head_kv++;
      if (head.n_row() + c.n_new <= options_.budget) return std::vector<bool>(head.n_row(), true);
      std::vector<float> scores = foreseen(c, head, h);
      prefer(scores, head, options_, 0);
      return best(scores, options_.budget - c.n_new);
    });
  }

 private:
  // Mean and second moment of the queries to come, as they stand to keys that were rotated from one base of positions on.
  struct Foreseen {
    std::vector<double> mean, covariance;
  };
  static Foreseen turned(const cache::Queries& queries, int head, double first_position) {
    const cache::Rotation& r = queries.rotation();
    const auto d = static_cast<size_t>(queries.d());
    const auto mean = queries.mean(head), product = queries.product(head);
    Foreseen f{{mean.begin(), mean.end()}, {product.begin(), product.end()}};
    for (size_t i = 0; i < d; ++i)
      for (size_t j = 0; j < d; ++j) f.covariance[i * d + j] -= static_cast<double>(mean[i]) * mean[j];
    std::vector<double> cos, sin;
    r.mean_of(first_position, kFuture, cos, sin);
    const auto turn = [&](double* at, size_t stride) {
      for (size_t p = 0; p < r.angle.size(); ++p) {
        double &a = at[r.first[p] * stride], &b = at[r.second[p] * stride];
        const double before = a;
        a = before * cos[p] - b * sin[p];
        b = before * sin[p] + b * cos[p];
      }
    };
    turn(f.mean.data(), 1);
    for (size_t i = 0; i < d; ++i) turn(f.covariance.data() + i * d, 1);
    for (size_t i = 0; i < d; ++i) turn(f.covariance.data() + i, d);
    return f;
  }

  static std::vector<float> foreseen(const Crowded& c, const cache::Head& head, int head_kv) {
    const cache::Queries& queries = *c.layer.queries;
    const int group = queries.n_head() / static_cast<int>(c.layer.heads.size()), n_row = head.n_row(), d = queries.d();
    const std::vector<int32_t> positions = head.positions();
    const std::vector<float> keys = head.keys(), values = head.values();
    std::vector<double> attention(n_row);
    for (int h = head_kv * group; h < (head_kv + 1) * group; ++h) {
      std::vector<double> logit(n_row);
      for (int row = 0, end; row < n_row; row = end) {  // rows of one base
        const int64_t base = c.memory.base_of(positions[row]);
        end = row + 1;
        while (end < n_row && c.memory.base_of(positions[end]) == base) ++end;
        const Foreseen f = turned(queries, h, static_cast<double>(c.memory.n_past() - 1 - base));
        const float* key = keys.data() + static_cast<size_t>(row) * d;
        const std::vector<float> covariance(f.covariance.begin(), f.covariance.end());  // symmetric
        const std::vector<float> along = products(*c.layer.storage->kernels, key, end - row, covariance.data(), d, d, d);
        for (int r = row; r < end; ++r, key += d) {
          const double linear = std::inner_product(key, key + d, f.mean.begin(), 0.0);
          const double square = std::inner_product(key, key + d, along.begin() + static_cast<ptrdiff_t>(r - row) * d, 0.0);
          logit[r] = queries.scale() * (linear + queries.scale() * square / 2);
        }
      }
      const double top = *std::max_element(logit.begin(), logit.end());
      double sum = 0;
      for (double& x : logit) sum += x = std::exp(x - top);
      for (int row = 0; row < n_row; ++row) attention[row] += logit[row] / sum / group;
    }
    std::vector<float> scores(n_row);
    const int d_value = c.layer.storage->d_value;
    for (int row = 0; row < n_row; ++row) {
      const float* value = values.data() + static_cast<size_t>(row) * d_value;
      scores[row] = static_cast<float>((attention[row] + kEpsilon) * std::sqrt(std::inner_product(value, value + d_value, value, 0.0)));
    }
    return scores;
  }

  Options options_;
};

}  // namespace

std::unique_ptr<Policy> expected(const Options& options) { return std::make_unique<Expected>(options); }

}  // namespace sinkscope::policy
