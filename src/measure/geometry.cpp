#include "measure/geometry.h"

#include <algorithm>
#include <cmath>

#include "attention/team.h"

namespace sinkscope::measure {
namespace {

template <typename A, typename B>
double dot(const A* a, const B* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

double norm_of(const float* row, int n) { return std::sqrt(dot(row, row, n)); }

double inverse(double x) { return x > 0 ? 1 / x : 0; }

// Sums of rows before each one, so that the sum over any run of them costs one difference: [n + 1, d].
class Prefix {
 public:
  Prefix(int n, int d) : d_(d), sums_(static_cast<size_t>(n + 1) * d) {}
  void put(int row, const float* values, double factor) {
    const double* from = sums_.data() + static_cast<size_t>(row) * d_;
    double* to = sums_.data() + static_cast<size_t>(row + 1) * d_;
    for (int i = 0; i < d_; ++i) to[i] = from[i] + factor * values[i];
  }
  double dot_with(const float* values, int begin, int end) const { return dot(values, at(end), d_) - dot(values, at(begin), d_); }

 private:
  const double* at(int row) const { return sums_.data() + static_cast<size_t>(row) * d_; }
  int d_;
  std::vector<double> sums_;
};

}  // namespace

void Geometry::start(int n_token) {
  n_token_ = n_token;
  for (LayerGeometry& layer : layers_) layer.key_norm.clear();
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
  if (call.n_stream != 1) return void(skipped_.insert(call.layer));
  if (call.layer >= static_cast<int>(layers_.size())) layers_.resize(call.layer + 1);
  LayerGeometry& layer = layers_[call.layer];
  if (layer.key_norm.empty()) {
    layer.scale = call.scale;
    layer.rotated = !rope.first.empty();
    layer.n_head_kv = call.n_head_kv;
    layer.heads.resize(call.n_head);
    layer.n_row.assign(n_token_, 0);
    for (std::vector<float>* of_keys : {&layer.key_norm, &layer.value_norm}) of_keys->assign(static_cast<size_t>(call.n_head_kv) * n_token_, 0);
    for (std::vector<float>* sums : {&layer.logit, &layer.cos, &layer.cos_unrotated}) sums->assign(static_cast<size_t>(call.n_head) * n_token_, 0);
  }
  // A key is seen by a run of queries: with any window, both ways or one.
  const int n_query = std::min(call.n_query, n_token_ - call.first_key);
  int n = 0;
  for (const RowView& row : rows_) n = std::max(n, std::min(row.end, n_token_));
  std::vector<Run> runs(n);
  for (int i = 0; i < n_query; ++i)
    for (int k = rows_[i].begin; k < std::min(rows_[i].end, n); ++k) {
      if (runs[k].end == 0) runs[k].begin = i;
      runs[k].end = i + 1;
    }
  for (int k = 0; k < n; ++k) layer.n_row[k] += static_cast<float>(runs[k].end - runs[k].begin);

  std::vector<float> cos, sin;
  for (int position = 0; layer.rotated && position < std::max(n, call.first_key + call.n_query); ++position)
    for (const double angle : rope.angle) {
      cos.push_back(static_cast<float>(std::cos(angle * position)));
      sin.push_back(static_cast<float>(std::sin(angle * position)));
    }
  const attention::Turns turns{rope.first, rope.second, cos, sin};
  attention::run_tasks(call.n_head_kv, n_thread_, [&](int head_kv, int) { look(call, turns, kernels, head_kv, runs, layer); });
}

void Geometry::look(const attention::Call& call, const attention::Turns& turns, const attention::Kernels& kernels, int head_kv, std::span<const Run> runs, LayerGeometry& layer) const {
  const int n = static_cast<int>(runs.size()), d = call.d_key, d_value = call.d_value, n_query = std::min(call.n_query, n_token_ - call.first_key);
  const auto decoded = [&](attention::Rows rows, int size) {
    std::vector<float> values(static_cast<size_t>(n) * size);
    rows.data = rows.row(0, head_kv, 0);
    kernels.decode_rows(rows, 0, 1, 0, n, size, size, values.data());
    return values;
  };
  const std::vector<float> keys = decoded(call.k, d), values = decoded(call.v, d_value);
  const auto turned_back = [&](const float* row, int position, std::vector<float>& to) {
    to.assign(row, row + d);
    if (turns.count() > position) turns.apply(position, /*back=*/true, to.data());
  };
  float* key_norm = layer.key_norm.data() + static_cast<size_t>(head_kv) * n_token_;
  float* value_norm = layer.value_norm.data() + static_cast<size_t>(head_kv) * n_token_;
  for (int k = 0; k < n; ++k) {
    key_norm[k] = static_cast<float>(norm_of(keys.data() + static_cast<size_t>(k) * d, d));
    value_norm[k] = static_cast<float>(norm_of(values.data() + static_cast<size_t>(k) * d_value, d_value));
  }

  // Sums of the queries, of their directions, and of these before RoPE.
  struct Queries {
    Queries(int n, int d) : whole(n, d), units(n, d), unrotated(n, d) {}
    Prefix whole, units, unrotated;
  };
  const int group = call.n_head / call.n_head_kv;
  std::vector<Queries> queries(group, Queries(n_query, d));
  std::vector<float> before;
  for (int g = 0; g < group; ++g) {
    const int head = head_kv * group + g;
    HeadGeometry& to = layer.heads[head];
    to.n_query += n_query;
    for (int i = 0; i < n_query; ++i) {
      const float* q = call.query(0, head, i);
      const double length = norm_of(q, d);
      turned_back(q, call.first_key + i, before);
      queries[g].whole.put(i, q, 1);
      queries[g].units.put(i, q, inverse(length));
      queries[g].unrotated.put(i, before.data(), inverse(length));
      to.query_norm += length;
      to.null_mass += 1 / (1 + std::exp(static_cast<double>(log_sum_[static_cast<size_t>(head) * call.n_query + i])));
    }
  }
  for (int k = 0; k < n; ++k) {
    if (runs[k].end == 0) continue;
    const float* key = keys.data() + static_cast<size_t>(k) * d;
    const double one_over = inverse(key_norm[k]);
    turned_back(key, k, before);
    for (int g = 0; g < group; ++g) {
      const size_t at = static_cast<size_t>(head_kv * group + g) * n_token_ + k;
      layer.logit[at] += static_cast<float>(call.scale * queries[g].whole.dot_with(key, runs[k].begin, runs[k].end));
      layer.cos[at] += static_cast<float>(one_over * queries[g].units.dot_with(key, runs[k].begin, runs[k].end));
      layer.cos_unrotated[at] += static_cast<float>(one_over * queries[g].unrotated.dot_with(before.data(), runs[k].begin, runs[k].end));
    }
  }
}

void Geometry::finish(const Recorder& recorder, float epsilon, int min_rows) {
  for (size_t l = 0; l < layers_.size() && l < recorder.layers().size(); ++l) {
    LayerGeometry& layer = layers_[l];
    if (layer.key_norm.empty()) continue;
    const int n_head = static_cast<int>(layer.heads.size());
    for (int h = 0; h < n_head; ++h) {
      HeadGeometry& to = layer.heads[h];
      std::vector<int> sinks = recorder.layers()[l].sinks(h, n_token_, epsilon, min_rows);
      ++to.n_prompt;
      to.n_sink_prompt += !sinks.empty();
      if (sinks.empty()) sinks.push_back(0);
      const float* column_sum = recorder.layers()[l].column_sum.data() + static_cast<size_t>(h) * n_token_;
      const size_t of_head = static_cast<size_t>(h) * n_token_, of_head_kv = static_cast<size_t>(h / (n_head / layer.n_head_kv)) * n_token_;
      for (int k = 0; k < n_token_; ++k) {
        const bool is_sink = std::ranges::binary_search(sinks, k);
        HeadGeometry::Keys& keys = is_sink ? to.sinks : to.others;
        keys.n_pair += layer.n_row[k];
        keys.norm += layer.n_row[k] * layer.key_norm[of_head_kv + k];
        keys.logit += layer.logit[of_head + k];
        keys.cos += layer.cos[of_head + k];
        keys.cos_unrotated += layer.cos_unrotated[of_head + k];
        const double share = column_sum[k] * layer.value_norm[of_head_kv + k];
        to.output += share;
        if (is_sink) to.sink_output += share;
      }
    }
  }
}

HeadGeometry HeadGeometry::mean() const {
  HeadGeometry m = *this;
  for (Keys* keys : {&m.sinks, &m.others})
    for (double* x : {&keys->norm, &keys->cos, &keys->cos_unrotated, &keys->logit}) *x *= inverse(keys->n_pair);
  for (double* x : {&m.query_norm, &m.null_mass}) *x *= inverse(static_cast<double>(n_query));
  return m;
}

}  // namespace sinkscope::measure
