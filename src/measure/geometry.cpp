#include "measure/geometry.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "attention/team.h"

namespace sinkscope::measure {
namespace {

double dot(const float* a, const float* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

double dot(const float* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

float f16_value(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 1023u;
  if (exponent == 0) return std::ldexp(static_cast<float>(fraction), -24) * (sign ? -1.0f : 1.0f);
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | fraction << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

// Sums over the keys before each one, so that the mean over any run of keys costs one difference: [n + 1, d].
class Prefix {
 public:
  Prefix(int n, int d) : d_(d), sums_(static_cast<size_t>(n + 1) * d) {}
  void add(int key, const float* row, double factor) {
    const double* from = sums_.data() + static_cast<size_t>(key) * d_;
    double* to = sums_.data() + static_cast<size_t>(key + 1) * d_;
    for (int i = 0; i < d_; ++i) to[i] = from[i] + factor * row[i];
  }
  double dot_with(const float* row, int begin, int end) const { return dot(row, at(end), d_) - dot(row, at(begin), d_); }

 private:
  const double* at(int key) const { return sums_.data() + static_cast<size_t>(key) * d_; }
  int d_;
  std::vector<double> sums_;
};

}  // namespace

// The keys and values of one KV head.
struct Geometry::Keys {
  Keys(const attention::Call& call, const attention::Turns& turns, const attention::Kernels& kernels, int head_kv, int n)
      : d(call.d_key), d_value(call.d_value), k(static_cast<size_t>(n) * d), unrotated(k.size()), v(static_cast<size_t>(n) * d_value), norm(n), norm_before(n + 1),
        units(n, d), unrotated_units(n, d), all(n, d) {
    const auto of_head = [&](attention::Rows rows) {
      rows.data = rows.row(0, head_kv, 0);
      return rows;
    };
    kernels.decode_rows(of_head(call.k), 0, 1, 0, n, d, d, k.data());
    kernels.decode_rows(of_head(call.v), 0, 1, 0, n, d_value, d_value, v.data());
    unrotated = k;
    for (int i = 0; i < n; ++i) {
      if (turns.count() > i) turns.apply(i, /*back=*/true, unrotated.data() + static_cast<size_t>(i) * d);
      norm[i] = std::sqrt(dot(key(i), key(i), d));
      norm_before[i + 1] = norm_before[i] + norm[i];
      const double inverse = norm[i] > 0 ? 1 / norm[i] : 0;
      all.add(i, key(i), 1);
      units.add(i, key(i), inverse);
      unrotated_units.add(i, unrotated.data() + static_cast<size_t>(i) * d, inverse);
    }
  }
  const float* key(int i) const { return k.data() + static_cast<size_t>(i) * d; }
  const float* unrotated_key(int i) const { return unrotated.data() + static_cast<size_t>(i) * d; }
  const float* value(int i) const { return v.data() + static_cast<size_t>(i) * d_value; }

  int d, d_value;
  std::vector<float> k, unrotated, v;
  std::vector<double> norm, norm_before;  // [n], and sums of it [n + 1]
  Prefix units, unrotated_units, all;
};

void Geometry::start(int n_token) {
  n_token_ = n_token;
  for (LayerGeometry& layer : layers_) layer.key_norm.clear(), layer.value_norm.clear();
}

void Geometry::begin(const AttentionShape& shape) {
  shape_ = &shape;
  log_sum_.assign(static_cast<size_t>(shape.n_stream) * shape.n_head * shape.n_query, 0);
  rows_.assign(shape.rows.begin(), shape.rows.begin() + shape.n_query);
}

void Geometry::see(const Tile& tile) {
  const size_t head = static_cast<size_t>(tile.stream) * shape_->n_head + tile.head;
  std::copy_n(tile.log_sum, tile.n_row, log_sum_.data() + head * shape_->n_query + tile.first_query);
}

void Geometry::after(const attention::Call& call, const backend::Rope& rope, const attention::Kernels& kernels) {
  if (call.n_stream != 1) return;  // groups of heads with masks of their own
  if (call.layer >= static_cast<int>(layers_.size())) layers_.resize(call.layer + 1);
  LayerGeometry& layer = layers_[call.layer];
  layer.scale = call.scale;
  layer.rotated = !rope.first.empty();
  layer.n_head_kv = call.n_head_kv;
  layer.heads.resize(call.n_head);
  const bool is_first = layer.key_norm.empty();
  for (std::vector<float>* norms : {&layer.key_norm, &layer.value_norm}) norms->resize(static_cast<size_t>(call.n_head_kv) * n_token_);
  int n = 0;
  for (const RowView& row : rows_) n = std::max(n, row.end);
  n = std::min(n, n_token_);

  std::vector<float> cos, sin;
  for (int position = 0; layer.rotated && position < std::max(n, call.first_key + call.n_query); ++position)
    for (const double angle : rope.angle) {
      cos.push_back(static_cast<float>(std::cos(angle * position)));
      sin.push_back(static_cast<float>(std::sin(angle * position)));
    }
  const attention::Turns turns{rope.first, rope.second, cos, sin};
  const int group = call.n_head / call.n_head_kv;
  attention::run_tasks(call.n_head_kv, n_thread_, [&](int head_kv, int) {
    const Keys keys(call, turns, kernels, head_kv, n);
    for (int k = 0; k < n; ++k) {
      layer.key_norm[static_cast<size_t>(head_kv) * n_token_ + k] = static_cast<float>(keys.norm[k]);
      layer.value_norm[static_cast<size_t>(head_kv) * n_token_ + k] = static_cast<float>(std::sqrt(dot(keys.value(k), keys.value(k), keys.d_value)));
    }
    for (int head = head_kv * group; head < (head_kv + 1) * group; ++head) {
      layer.heads[head].n_prompt += is_first;
      look(call, keys, turns, head, layer.heads[head]);
    }
  });
}

void Geometry::look(const attention::Call& call, const Keys& keys, const attention::Turns& turns, int head, HeadGeometry& to) const {
  const int n = static_cast<int>(keys.norm.size()), d = keys.d;
  // In the prompt so far.
  std::vector<int> sinks = recorder_.layers()[call.layer].sinks(head, n_token_, epsilon_, min_rows_);
  const bool ends_prompt = call.first_key + call.n_query >= n_token_;
  to.n_sink_prompt += ends_prompt && !sinks.empty();
  if (sinks.empty()) sinks.push_back(0);
  const float slope = attention::alibi_slope(call, head);
  std::vector<float> unrotated(d), part(keys.d_value);
  for (int i = 0; i < call.n_query && call.first_key + i < n_token_; ++i) {
    const double log_sum = log_sum_[static_cast<size_t>(head) * call.n_query + i];
    to.null_mass += 1 / (1 + std::exp(log_sum));
    ++to.n_query;
    const int begin = rows_[i].begin, end = std::min(rows_[i].end, n);
    const float* q = call.query(0, head, i);
    const double q_norm = std::sqrt(dot(q, q, d));
    std::copy_n(q, d, unrotated.data());
    if (turns.count() > call.first_key + i) turns.apply(call.first_key + i, /*back=*/true, unrotated.data());

    // Sums over the keys that the query sees: sinks alone, then all of them; the others are the difference.
    HeadGeometry::Keys s, o;
    int n_sink = 0;
    std::fill(part.begin(), part.end(), 0.0f);
    for (const int k : sinks) {
      if (k < begin || k >= end) continue;
      ++n_sink;
      const double product = dot(q, keys.key(k), d), lengths = q_norm * keys.norm[k];
      s.norm += keys.norm[k];
      s.logit += product;
      s.cos += lengths > 0 ? product / lengths : 0;
      s.cos_unrotated += lengths > 0 ? dot(unrotated.data(), keys.unrotated_key(k), d) / lengths : 0;
      double logit = call.scale * product;
      if (call.soft_cap != 0) logit = call.soft_cap * std::tanh(logit / call.soft_cap);
      if (call.mask.data) logit += slope * f16_value(call.mask.row(0, head, i)[k]);
      const double weight = std::exp(logit - log_sum);
      for (int c = 0; c < keys.d_value; ++c) part[c] += static_cast<float>(weight * keys.value(k)[c]);
    }
    const int n_other = end - begin - n_sink;
    if (n_sink == 0 || n_other <= 0 || !(q_norm > 0)) continue;
    o.norm = (keys.norm_before[end] - keys.norm_before[begin] - s.norm) / n_other;
    o.logit = (keys.all.dot_with(q, begin, end) - s.logit) / n_other;
    o.cos = (keys.units.dot_with(q, begin, end) / q_norm - s.cos) / n_other;
    o.cos_unrotated = (keys.unrotated_units.dot_with(unrotated.data(), begin, end) / q_norm - s.cos_unrotated) / n_other;
    const auto add = [&](HeadGeometry::Keys& sum, const HeadGeometry::Keys& x, double factor) {
      sum.norm += x.norm * factor;
      sum.cos += x.cos * factor;
      sum.cos_unrotated += x.cos_unrotated * factor;
      sum.logit += x.logit * factor * call.scale;
    };
    add(to.sinks, s, 1.0 / n_sink);
    add(to.others, o, 1);
    to.query_norm += q_norm;
    double of_sinks = 0, of_others = 0;
    const float* out = call.output(0, i, head);
    for (int c = 0; c < keys.d_value; ++c) {
      const double rest = static_cast<double>(out[c]) - part[c];
      of_sinks += static_cast<double>(part[c]) * part[c];
      of_others += rest * rest;
    }
    of_sinks = std::sqrt(of_sinks), of_others = std::sqrt(of_others);
    to.output_share += of_sinks + of_others > 0 ? of_sinks / (of_sinks + of_others) : 0;
    ++to.n_row;
  }
}

HeadGeometry HeadGeometry::mean() const {
  HeadGeometry m = *this;
  const double rows = std::max<double>(static_cast<double>(n_row), 1);
  for (Keys* keys : {&m.sinks, &m.others})
    for (double* x : {&keys->norm, &keys->cos, &keys->cos_unrotated, &keys->logit}) *x /= rows;
  m.query_norm /= rows;
  m.output_share /= rows;
  m.null_mass /= std::max<double>(static_cast<double>(n_query), 1);
  return m;
}

}  // namespace sinkscope::measure
