#include "cache/queries.h"

#include <cmath>
#include <numbers>

namespace sinkscope::cache {

void Rotation::turn(double position, float* row) const {
  for (size_t i = 0; i < angle.size(); ++i) {
    const double turned = std::remainder(angle[i] * position, 2 * std::numbers::pi);
    const auto c = static_cast<float>(std::cos(turned)), s = static_cast<float>(std::sin(turned));
    const float a = row[first[i]], b = row[second[i]];
    row[first[i]] = a * c - b * s;
    row[second[i]] = a * s + b * c;
  }
}

void Rotation::mean_of(double first_position, int n, std::vector<double>& cos, std::vector<double>& sin) const {
  cos.resize(angle.size());
  sin.resize(angle.size());
  for (size_t i = 0; i < angle.size(); ++i) {
    // A geometric series: its middle term, times what the others differ from it.
    const double a = angle[i], half = std::sin(a / 2);
    const double length = std::abs(half) < 1e-9 ? 1 : std::sin(n * a / 2) / (n * half);
    const double middle = std::remainder(a * (first_position + (n + 1) / 2.0), 2 * std::numbers::pi);
    cos[i] = length * std::cos(middle);
    sin[i] = length * std::sin(middle);
  }
}

Queries::Queries(int n_head, int d, float scale, Rotation rotation)
    : n_head_(n_head), d_(d), scale_(scale), rotation_(std::move(rotation)), n_(n_head), mean_(static_cast<size_t>(n_head) * d),
      product_(static_cast<size_t>(n_head) * d * d) {}

void Queries::add(int head, double position, const float* query) {
  std::vector<float> q(query, query + d_);
  rotation_.turn(-position, q.data());
  const float share = 1 / ++n_[head];
  float* mean = mean_.data() + static_cast<size_t>(head) * d_;
  float* product = product_.data() + static_cast<size_t>(head) * d_ * d_;
  for (int i = 0; i < d_; ++i) mean[i] += share * (q[i] - mean[i]);
  for (int i = 0; i < d_; ++i)
    for (int j = 0; j < d_; ++j) product[static_cast<size_t>(i) * d_ + j] += share * (q[i] * q[j] - product[static_cast<size_t>(i) * d_ + j]);
}

size_t Queries::bytes() const {
  return (n_.size() + mean_.size() + product_.size()) * sizeof(float) + rotation_.angle.size() * (sizeof(double) + 2 * sizeof(int));
}

std::vector<float> Queries::numbers() const {
  std::vector<float> all = n_;
  all.insert(all.end(), mean_.begin(), mean_.end());
  all.insert(all.end(), product_.begin(), product_.end());
  return all;
}

bool Queries::restore(std::span<const float> numbers) {
  if (numbers.size() != n_.size() + mean_.size() + product_.size()) return false;
  for (std::vector<float>* part : {&n_, &mean_, &product_}) {
    part->assign(numbers.begin(), numbers.begin() + static_cast<ptrdiff_t>(part->size()));
    numbers = numbers.subspan(part->size());
  }
  return true;
}

}  // namespace sinkscope::cache
