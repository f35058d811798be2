#include "attention/attend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attention/operation.h"

namespace sinkscope::attention {
namespace {

constexpr int kFewQueries = 4;  // up to so many, packing costs more than it saves

// Reads the masks once for all heads: which keys each query sees, and how many queries see each key.
void read_masks(const Call& call, const Kernels& kernels, int n_thread, Workspace& work, AttentionShape& shape) {
  shape.n_plane_stream = call.mask.data ? call.mask.n_stream : 1;
  shape.n_plane_head = call.mask.data ? call.mask.n_head : 1;
  const int n_plane = shape.n_plane_stream * shape.n_plane_head;
  work.rows.assign(static_cast<size_t>(n_plane) * call.n_query, RowView{0, call.n_key, true});
  work.key_n_row.assign(static_cast<size_t>(n_plane) * call.n_key, 0);
  for (int plane = 0; plane < n_plane; ++plane) {
    RowView* rows = work.rows.data() + static_cast<size_t>(plane) * call.n_query;
    uint32_t* n_row = work.key_n_row.data() + static_cast<size_t>(plane) * call.n_key;
    const auto mask_row = [&](int i) {
      return call.mask.row(plane / shape.n_plane_head, plane % shape.n_plane_head, i);
    };
    if (call.mask.data)
      run_tasks(call.n_query, call.n_query > kFewQueries ? n_thread : 1,
                [&](int i, int) { rows[i] = kernels.view_of(mask_row(i), call.n_key); });
    // Plain rows add 1 to a run of keys: counted by its ends (the difference wraps around, the sum does not).
    for (int i = 0; i < call.n_query; ++i) {
      if (rows[i].begin >= rows[i].end || !rows[i].plain) continue;
      ++n_row[rows[i].begin];
      if (rows[i].end < call.n_key) --n_row[rows[i].end];
    }
    for (int k = 1; k < call.n_key; ++k) n_row[k] += n_row[k - 1];
    constexpr uint16_t kMinusInfinity = 0xFC00;
    for (int i = 0; i < call.n_query; ++i)
      if (!rows[i].plain)
        for (int k = rows[i].begin; k < rows[i].end; ++k) n_row[k] += mask_row(i)[k] != kMinusInfinity;
  }
  shape.rows = work.rows;
  shape.key_n_row = work.key_n_row;
}

}  // namespace

Operation::Keys Operation::visible(int stream, int head, int first_query, int n_query, int step) const {
  int begin = call.n_key, end = 0;
  for (int r = 0; r < n_query; ++r) {
    const RowView& v = view(stream, head, first_query + r);
    if (v.begin >= v.end) continue;
    begin = std::min(begin, v.begin);
    end = std::max(end, v.end);
  }
  return {std::min(begin, end) / step * step, end};
}

void Operation::scaled_queries(int stream, int head, int first_query, int n_query, int d_stride, float* to) const {
  const float scale = call.scale;
  for (int r = 0; r < n_query; ++r, to += d_stride) {
    const float* q = call.query(stream, head, first_query + r);
    for (int d = 0; d < call.d_key; ++d) to[d] = scale * q[d];
    std::fill(to + call.d_key, to + d_stride, 0.0f);
  }
}

float Operation::learned_logit(int stream, int head, int query) const {
  const float *q = call.query(stream, head, query), *key = call.learned_key + static_cast<size_t>(head / group()) * call.d_key;
  return call.scale * std::inner_product(q, q + call.d_key, key, 0.0f);
}

void Operation::add_learned_value(int head, float mass, float* out) const {
  const HeadEdit edit = call.edits.empty() ? HeadEdit{} : call.edits[head];
  if (!call.learned_value || edit.learned_sink || edit.silent) return;
  const float* value = call.learned_value + static_cast<size_t>(head / group()) * call.d_value;
  for (int d = 0; d < call.d_value; ++d) out[d] += mass * value[d];
}

void Operation::weigh_row(const Tile& tile, const RowTask& task, float* row, const RowValues& values) const {
  (call.sigmoid ? kernels.sigmoid_row : kernels.softmax_row)(row, tile.key_begin, tile.key_end, task, values);
}

void Operation::weigh_rows(const Tile& tile, float* weights, const RowValues& values) const {
  const float slope = alibi_slope(call, tile.head);
  for (int r = 0; r < tile.n_row; ++r) {
    RowTask task{.view = view(tile.stream, tile.head, tile.first_query + r), .mask = nullptr, .slope = slope,
                 .soft_cap = call.soft_cap, .learned_sink = call.learned_sink ? call.learned_sink + tile.head : nullptr};
    task.view.begin = std::clamp(task.view.begin, tile.key_begin, tile.key_end);
    task.view.end = std::clamp(task.view.end, task.view.begin, tile.key_end);
    if (!task.view.plain) task.mask = call.mask.row(tile.stream, tile.head, tile.first_query + r);
    const float learned = call.learned_key ? learned_logit(tile.stream, tile.head, tile.first_query + r) : 0;
    if (call.learned_key) task.learned_sink = &learned;
    float* row = weights + static_cast<size_t>(r) * tile.stride;
    if (call.edits.empty()) weigh_row(tile, task, row, values.at(r));
    else edited_row(call.edits[tile.head], tile, r, task, row, values.at(r));
  }
}

void Operation::edited_row(const HeadEdit& edit, const Tile& tile, int r, RowTask task, float* row, const RowValues& values) const {
  const int own = call.first_key + tile.first_query + r;
  std::vector<float> spared;
  if (!edit.bias.empty()) {
    task.bias = edit.bias.data();
    if (own < call.n_key && edit.bias[own] != 0) {
      spared.assign(edit.bias.begin(), edit.bias.end());
      spared[own] = 0;
      task.bias = spared.data();
    }
  }
  if (edit.learned_sink) task.learned_sink = edit.learned_sink;
  weigh_row(tile, task, row, values);
  if (!edit.calmed.empty()) calm(edit, row - tile.key_begin, tile.key_begin, tile.key_end, values);
  if (!edit.silent) return;
  std::fill(row, row + (tile.key_end - tile.key_begin), 0.0f);
  *values.entropy = *values.largest_weight = 0;
}

// Moves weight from some keys to the others; entropy and largest weight follow.
void Operation::calm(const HeadEdit& edit, float* weights, int begin, int end, const RowValues& values) {
  double lost = 0, kept = 0;
  for (const int k : edit.calmed)
    if (k >= begin && k < end) lost += weights[k];
  for (int k = std::max(begin, 1); k < end; ++k) kept += weights[k];
  kept -= lost;
  if (!(lost > 0 && kept > 0)) return;
  const double others = 1 + (1 - edit.calm) * lost / kept, calmed = edit.calm / others;
  for (const int k : edit.calmed)
    if (k >= begin && k < end) weights[k] = static_cast<float>(weights[k] * calmed);
  double weighted = 0, total = 0;
  float largest = 0;
  const auto count = [&](double w) {
    total += w;
    if (w > 0) weighted += w * std::log(w);
  };
  for (int k = begin; k < end; ++k) {
    if (k > 0) weights[k] = static_cast<float>(weights[k] * others);
    largest = std::max(largest, weights[k]);
    count(weights[k]);
  }
  count(*values.learned_sink_mass);
  *values.entropy = static_cast<float>(std::log(total) - weighted / total);
  *values.largest_weight = largest;
}

void attend(const Call& call, std::span<Probe* const> probes, const Kernels& kernels, int n_thread, Workspace& work,
            Way way) {
  work.make_room_for(n_thread);
  Operation operation{.call = call, .probes = probes, .kernels = kernels, .n_thread = n_thread, .work = work,
                      .shape = {.layer = call.layer, .n_stream = call.n_stream, .n_query = call.n_query,
                                .n_key = call.n_key, .n_head = call.n_head, .n_head_kv = call.n_head_kv,
                                .d_key = call.d_key, .d_value = call.d_value,
                                .learned_sink = call.learned_sink || call.learned_key, .rows = {}, .key_n_row = {}}};
  read_masks(call, kernels, n_thread, work, operation.shape);
  try {
    if (way == Way::best && call.n_query <= kFewQueries) attend_by_keys(operation);
    else attend_by_tiles(operation);
  } catch (...) {
    for (Probe* probe : probes) probe->abandon();
    throw;
  }
}

}  // namespace sinkscope::attention
