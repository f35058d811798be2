#include "attention/attend.h"

#include <algorithm>
#include <utility>

#include "attention/team.h"

namespace sinkscope::attention {
namespace {

constexpr size_t kTileBytes = 256 << 10;  // weights of one tile: they stay in the L2 cache
constexpr int kMaxTileRows = 48;
constexpr int kMaxSlotsPerHead = 16;      // parts of a head's queries that threads may share out
constexpr int kKeysPerPackTask = 512;

int round_up(int n, int step) { return (n + step - 1) / step * step; }

// How the queries of a head are cut. A slot is a run of consecutive tiles that one thread works through.
struct Plan {
  int rows_per_tile, tiles_per_slot, slots_per_head;
  int first_query(int part) const { return part * tiles_per_slot * rows_per_tile; }
};

Plan plan_of(const Call& call, const Kernels& kernels) {
  const size_t row_bytes = sizeof(float) * round_up(std::max(call.n_key, 1), kernels.panel);
  const int fitting = static_cast<int>(std::min<size_t>(kTileBytes / row_bytes, kMaxTileRows));
  Plan plan{};
  plan.rows_per_tile = std::max(fitting / kernels.row_block, 1) * kernels.row_block;
  const int n_tile = (call.n_query + plan.rows_per_tile - 1) / plan.rows_per_tile;
  plan.tiles_per_slot = std::max((n_tile + kMaxSlotsPerHead - 1) / kMaxSlotsPerHead, 1);
  plan.slots_per_head = (n_tile + plan.tiles_per_slot - 1) / plan.tiles_per_slot;
  return plan;
}

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
      run_tasks(call.n_query, n_thread, [&](int i, int) { rows[i] = kernels.view_of(mask_row(i), call.n_key); });
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

class Operation {
 public:
  Operation(const Call& call, std::span<Probe* const> probes, const Kernels& kernels, int n_thread, Workspace& work)
      : call_(call), probes_(probes), kernels_(kernels), n_thread_(n_thread), work_(work),
        plan_(plan_of(call, kernels)), padded_key_(round_up(call.n_key, kernels.panel)),
        padded_value_(round_up(call.d_value, kernels.panel)) {
    work.make_room_for(n_thread);
  }

  void run() {
    AttentionShape shape{.layer = call_.layer, .n_stream = call_.n_stream, .n_query = call_.n_query,
                         .n_key = call_.n_key, .n_head = call_.n_head, .n_head_kv = call_.n_head_kv,
                         .d_key = call_.d_key, .d_value = call_.d_value,
                         .slots_per_head = plan_.slots_per_head, .n_slot = group() * plan_.slots_per_head,
                         .learned_sink = call_.learned_sink != nullptr, .rows = {}, .key_n_row = {}};
    read_masks(call_, kernels_, n_thread_, work_, shape);
    shape_ = &shape;
    for (Probe* probe : probes_) probe->begin(shape);
    for (int stream = 0; stream < call_.n_stream; ++stream)
      for (int head_kv = 0; head_kv < call_.n_head_kv; ++head_kv) {
        pack(stream, head_kv);
        const int first_head = head_kv * group();
        run_tasks(group() * plan_.slots_per_head, n_thread_, [&](int task, int thread) {
          // The last queries see most keys: they go first, so that threads end together.
          work_through(stream, first_head, task % group(), plan_.slots_per_head - 1 - task / group(), thread);
        });
        for (Probe* probe : probes_) probe->merge(stream, first_head, group());
      }
    for (Probe* probe : probes_) probe->end();
  }

 private:
  // Memory of one thread: a tile and what belongs to its rows.
  struct Scratch {
    float *queries, *weights, *values, *entropy, *learned_sink_mass, *row;
  };

  Scratch scratch(int thread) {
    const size_t rows = plan_.rows_per_tile;
    const size_t row = round_up(std::max(call_.d_key, call_.d_value), 64);
    float* at = work_.of_thread[thread].get(rows * (row + padded_key_ + padded_value_ + 2) + row);
    const auto take = [&](size_t n) { return std::exchange(at, at + n); };
    return {.queries = take(rows * row), .weights = take(rows * padded_key_), .values = take(rows * padded_value_),
            .entropy = take(rows), .learned_sink_mass = take(rows), .row = take(row)};
  }

  // Keys and values of one KV head as floats in panels: read by all query heads of its group.
  void pack(int stream, int head_kv) {
    float* keys = work_.key_panels.get(static_cast<size_t>(padded_key_) * call_.d_key);
    float* values = work_.value_panels.get(static_cast<size_t>(padded_key_) * padded_value_);
    run_tasks((call_.n_key + kKeysPerPackTask - 1) / kKeysPerPackTask, n_thread_, [&](int task, int thread) {
      const int first = task * kKeysPerPackTask, n = std::min(kKeysPerPackTask, call_.n_key - first);
      float* row = scratch(thread).row;
      kernels_.pack_keys(call_.k, stream, head_kv, first, n, call_.d_key, keys, row);
      kernels_.pack_values(call_.v, stream, head_kv, first, n, call_.d_value, padded_key_, values, row);
    });
  }

  int group() const { return call_.n_head / call_.n_head_kv; }

  void work_through(int stream, int first_head, int head_of_group, int part, int thread) {
    const Scratch s = scratch(thread);
    const int begin = plan_.first_query(part), end = std::min(plan_.first_query(part + 1), call_.n_query);
    for (int first = begin; first < end; first += plan_.rows_per_tile) {
      Tile tile{.stream = stream, .head = first_head + head_of_group,
                .slot = head_of_group * plan_.slots_per_head + part, .first_query = first,
                .n_row = std::min(plan_.rows_per_tile, end - first), .key_begin = 0, .key_end = 0,
                .weights = s.weights, .stride = 0, .entropy = s.entropy, .learned_sink_mass = s.learned_sink_mass};
      see_keys(tile);
      scores(tile, s);
      softmax_rows(tile, s);
      for (Probe* probe : probes_) probe->see(tile);
      weighted_values(tile, s);
    }
  }

  const RowView& view(const Tile& tile, int r) const {
    return shape_->rows[static_cast<size_t>(shape_->plane(tile.stream, tile.head)) * call_.n_query + tile.first_query + r];
  }

  // The tile's keys: all that any of its rows can see, from the start of a panel on.
  void see_keys(Tile& tile) const {
    int begin = call_.n_key, end = 0;
    for (int r = 0; r < tile.n_row; ++r) {
      const RowView& v = view(tile, r);
      if (v.begin >= v.end) continue;
      begin = std::min(begin, v.begin);
      end = std::max(end, v.end);
    }
    tile.key_begin = std::min(begin, end) / kernels_.panel * kernels_.panel;
    tile.key_end = end;
    tile.stride = static_cast<size_t>(round_up(end, kernels_.panel) - tile.key_begin);
  }

  void scores(const Tile& tile, const Scratch& s) const {
    const float scale = call_.scale;
    for (int r = 0; r < tile.n_row; ++r) {
      const float* q = call_.query(tile.stream, tile.head, tile.first_query + r);
      float* to = s.queries + static_cast<size_t>(r) * call_.d_key;
      for (int d = 0; d < call_.d_key; ++d) to[d] = scale * q[d];
    }
    kernels_.scores(s.queries, tile.n_row, call_.d_key, work_.key_panels.get(0), tile.key_begin / kernels_.panel,
                    round_up(tile.key_end, kernels_.panel) / kernels_.panel, s.weights, tile.stride);
  }

  void softmax_rows(const Tile& tile, const Scratch& s) const {
    const float slope = alibi_slope(call_, tile.head);
    for (int r = 0; r < tile.n_row; ++r) {
      RowTask task{.view = view(tile, r), .mask = nullptr, .slope = slope, .soft_cap = call_.soft_cap,
                   .learned_sink = call_.learned_sink ? call_.learned_sink + tile.head : nullptr};
      task.view.begin = std::clamp(task.view.begin, tile.key_begin, tile.key_end);
      task.view.end = std::clamp(task.view.end, task.view.begin, tile.key_end);
      if (!task.view.plain) task.mask = call_.mask.row(tile.stream, tile.head, tile.first_query + r);
      kernels_.softmax_row(s.weights + static_cast<size_t>(r) * tile.stride, tile.key_begin, tile.key_end, task,
                           s.entropy + r, s.learned_sink_mass + r);
    }
  }

  void weighted_values(const Tile& tile, const Scratch& s) const {
    if (tile.key_begin >= tile.key_end) std::fill_n(s.values, static_cast<size_t>(tile.n_row) * padded_value_, 0.0f);
    kernels_.weighted_values(s.weights, tile.stride, tile.n_row, tile.key_begin, tile.key_end, padded_key_,
                             work_.value_panels.get(0), call_.d_value, s.values);
    for (int r = 0; r < tile.n_row; ++r)
      std::copy_n(s.values + static_cast<size_t>(r) * padded_value_, call_.d_value,
                  call_.output(tile.stream, tile.first_query + r, tile.head));
  }

  const Call& call_;
  std::span<Probe* const> probes_;
  const Kernels& kernels_;
  const int n_thread_;
  Workspace& work_;
  const Plan plan_;
  const int padded_key_, padded_value_;
  const AttentionShape* shape_ = nullptr;
};

}  // namespace

void attend(const Call& call, std::span<Probe* const> probes, const Kernels& kernels, int n_thread, Workspace& work) {
  Operation(call, probes, kernels, n_thread, work).run();
}

}  // namespace sinkscope::attention
