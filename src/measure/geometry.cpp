#include "measure/geometry.h"

#include <algorithm>
#include <cmath>

#include "attention/team.h"

namespace sinkscope::measure {
namespace {

template <typename A, typename B>
double dot(const A* a, const B* b, int n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

double norm_of(const float* row, int n) { return std::sqrt(dot(row, row, n)); }

void turn_back(const attention::Turns& turns, int position, float* row) {
  if (turns.count() > position) turns.apply(position, /*back=*/true, row);
}

double inverse(double x) { return x > 0 ? 1 / x : 0; }

}  // namespace

void Geometry::Prefix::start(int n, int d) {
  d_ = d;
  sums_.resize(static_cast<size_t>(n + 1) * d);
  std::fill_n(sums_.begin(), d, 0);
}

void Geometry::Prefix::put(int row, const float* values, double factor) {
  const double* from = sums_.data() + static_cast<size_t>(row) * d_;
  double* to = sums_.data() + static_cast<size_t>(row + 1) * d_;
  for (int i = 0; i < d_; ++i) to[i] = from[i] + factor * values[i];
}

double Geometry::Prefix::dot_with(const float* values, int begin, int end) const {
  const auto with = [&](int row) { return dot(values, sums_.data() + static_cast<size_t>(row) * d_, d_); };
  return with(end) - (begin > 0 ? with(begin) : 0);
}

void Geometry::Keys::read(const attention::Call& call, const attention::Turns& turns, const attention::Kernels& kernels, int n, int n_thread) {
  constexpr int kRows = 64;  // of a task
  const int n_part = (n + kRows - 1) / kRows, d = call.d_key, d_value = call.d_value;
  const size_t n_row = static_cast<size_t>(call.n_head_kv) * n;
  for (std::vector<float>* rows : {&k, &unrotated}) rows->resize(n_row * d);
  for (std::vector<float>* norms : {&norm, &value_norm}) norms->resize(n_row);
  attention::run_tasks(call.n_head_kv * n_part, n_thread, [&](int task, int) {
    const int head = task / n_part, begin = task % n_part * kRows, end = std::min(n, begin + kRows);
    const auto decode = [&](attention::Rows rows, int size, float* to) {
      rows.data = rows.row(0, head, 0);
      kernels.decode_rows(rows, 0, 1, begin, end - begin, size, size, to);
    };
    const size_t first = static_cast<size_t>(head) * n + begin;
    std::vector<float> values(static_cast<size_t>(end - begin) * d_value);
    decode(call.k, d, k.data() + first * d);
    decode(call.v, d_value, values.data());
    std::copy_n(k.data() + first * d, static_cast<size_t>(end - begin) * d, unrotated.data() + first * d);
    for (int i = begin; i < end; ++i) {
      const size_t row = static_cast<size_t>(head) * n + i;
      turn_back(turns, i, unrotated.data() + row * d);
      norm[row] = static_cast<float>(norm_of(k.data() + row * d, d));
      value_norm[row] = static_cast<float>(norm_of(values.data() + static_cast<size_t>(i - begin) * d_value, d_value));
    }
  });
}

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

  static const Angles kNone;
  const Angles& angles = layer.rotated ? angles_up_to(std::max(n, call.first_key + call.n_query), rope.angle) : kNone;
  const attention::Turns turns{rope.first, rope.second, angles.cos, angles.sin};
  keys_.read(call, turns, kernels, n, n_thread_);
  for (int h = 0; h < call.n_head_kv; ++h) {
    std::copy_n(keys_.norm.data() + static_cast<size_t>(h) * n, n, layer.key_norm.data() + static_cast<size_t>(h) * n_token_);
    std::copy_n(keys_.value_norm.data() + static_cast<size_t>(h) * n, n, layer.value_norm.data() + static_cast<size_t>(h) * n_token_);
  }
  queries_.resize(n_thread_);
  attention::run_tasks(call.n_head, n_thread_, [&](int head, int thread) { look(call, turns, head, runs, queries_[thread], layer); });
}

const Geometry::Angles& Geometry::angles_up_to(int n_position, const std::vector<double>& per_position) {
  Angles& angles = angles_[per_position];
  for (; angles.n_position < n_position; ++angles.n_position)
    for (const double angle : per_position) {
      angles.cos.push_back(static_cast<float>(std::cos(angle * angles.n_position)));
      angles.sin.push_back(static_cast<float>(std::sin(angle * angles.n_position)));
    }
  return angles;
}

void Geometry::look(const attention::Call& call, const attention::Turns& turns, int head, std::span<const Run> runs, Queries& queries, LayerGeometry& layer) const {
  const int n = static_cast<int>(runs.size()), d = call.d_key, n_query = std::min(call.n_query, n_token_ - call.first_key), head_kv = head / (call.n_head / call.n_head_kv);
  auto& [whole, units, unrotated, before] = queries;
  for (Prefix* sums : {&whole, &units, &unrotated}) sums->start(n_query, d);
  before.resize(d);
  HeadGeometry& to = layer.heads[head];
  to.n_query += n_query;
  for (int i = 0; i < n_query; ++i) {
    const float* q = call.query(0, head, i);
    const double length = norm_of(q, d);
    std::copy_n(q, d, before.data());
    turn_back(turns, call.first_key + i, before.data());
    whole.put(i, q, 1);
    units.put(i, q, inverse(length));
    unrotated.put(i, before.data(), inverse(length));
    to.query_norm += length;
    to.null_mass += 1 / (1 + std::exp(static_cast<double>(log_sum_[static_cast<size_t>(head) * call.n_query + i])));
  }
  for (int k = 0; k < n; ++k) {
    const Run run = runs[k];
    if (run.end == 0) continue;
    const size_t row = static_cast<size_t>(head_kv) * n + k, at = static_cast<size_t>(head) * n_token_ + k;
    const float* key = keys_.k.data() + row * d;
    const double one_over = inverse(keys_.norm[row]);
    layer.logit[at] += static_cast<float>(call.scale * whole.dot_with(key, run.begin, run.end));
    layer.cos[at] += static_cast<float>(one_over * units.dot_with(key, run.begin, run.end));
    layer.cos_unrotated[at] += static_cast<float>(one_over * unrotated.dot_with(keys_.unrotated.data() + row * d, run.begin, run.end));
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
