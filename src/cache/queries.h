// What queries of a layer have been like, before they were rotated by their position: for policies that foresee attention.
#pragma once

#include <span>
#include <vector>

namespace sinkscope::cache {

// A rotation by position (RoPE), by pairs of components.
struct Rotation {
  std::vector<int> first, second;
  std::vector<double> angle;  // of a pair, in radians for one position

  void turn(double position, float* row) const;
  // The rotation by each of the positions first_position + 1 ... first_position + n, averaged: cosines and sines by pair.
  void mean_of(double first_position, int n, std::vector<double>& cos, std::vector<double>& sin) const;
};

class Queries {
 public:
  Queries(int n_head, int d, float scale, Rotation rotation);

  // A query of this head, rotated by its position.
  void add(int head, double position, const float* query);

  int n_head() const { return n_head_; }
  int d() const { return d_; }
  float scale() const { return scale_; }
  const Rotation& rotation() const { return rotation_; }
  std::span<const float> mean(int head) const { return std::span(mean_).subspan(static_cast<size_t>(head) * d_, d_); }
  // Mean of q q^T, [d, d].
  std::span<const float> product(int head) const { return std::span(product_).subspan(static_cast<size_t>(head) * d_ * d_, static_cast<size_t>(d_) * d_); }
  size_t bytes() const;

  // For saving: what add() has summed up.
  std::vector<float> numbers() const;
  bool restore(std::span<const float> numbers);  // false: not as many as there must be

 private:
  int n_head_, d_;
  float scale_;  // of logits
  Rotation rotation_;
  std::vector<float> n_, mean_, product_;  // [n_head], [n_head, d], [n_head, d, d]
};

}  // namespace sinkscope::cache
