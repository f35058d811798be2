#include <algorithm>
#include <utility>

#include "attention/operation.h"

namespace sinkscope::attention {
namespace {

constexpr size_t kTileBytes = 256 << 10;  // weights of one tile: they stay in the L2 cache
constexpr int kMaxTileRows = 48;
constexpr int kMaxSlotsPerHead = 16;      // parts of a head's queries that threads may share out
constexpr int kKeysPerPackTask = 512;

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

class ByTiles {
 public:
  explicit ByTiles(Operation& operation)
      : op_(operation), call_(op_.call), kernels_(op_.kernels), work_(op_.work), plan_(plan_of(call_, kernels_)),
        padded_key_(round_up(call_.n_key, kernels_.panel)), padded_value_(round_up(call_.d_value, kernels_.panel)) {}

  void run() {
    const int group = op_.group();
    op_.shape.slots_per_head = plan_.slots_per_head;
    op_.shape.n_slot = group * plan_.slots_per_head;
    for (Probe* probe : op_.probes) probe->begin(op_.shape);
    for (int stream = 0; stream < call_.n_stream; ++stream)
      for (int head_kv = 0; head_kv < call_.n_head_kv; ++head_kv) {
        pack(stream, head_kv);
        const int first_head = head_kv * group;
        run_tasks(group * plan_.slots_per_head, op_.n_thread, [&](int task, int thread) {
          // The last queries see most keys: they go first, so that threads end together.
          work_through(stream, first_head, task % group, plan_.slots_per_head - 1 - task / group, thread);
        });
        for (Probe* probe : op_.probes) probe->merge(stream, first_head, group);
      }
    for (Probe* probe : op_.probes) probe->end();
  }

 private:
  // Memory of one thread: a tile and what belongs to its rows.
  struct Scratch {
    float *queries, *weights, *values, *row;
    RowValues of_rows;
  };

  Scratch scratch(int thread) {
    const size_t rows = plan_.rows_per_tile;
    const size_t row = round_up(std::max(call_.d_key, call_.d_value), 64);
    float* at = work_.of_thread[thread].get(rows * (row + padded_key_ + padded_value_ + RowValues::kCount) + 2 * row);
    const auto take = [&](size_t n) { return std::exchange(at, at + n); };
    return {.queries = take(rows * row), .weights = take(rows * padded_key_), .values = take(rows * padded_value_),
            .row = take(2 * row), .of_rows = {take(rows), take(rows), take(rows), take(rows)}};
  }

  // Keys and values of one KV head as floats in panels: read by all query heads of its group.
  void pack(int stream, int head_kv) {
    float* keys = work_.key_panels.get(static_cast<size_t>(padded_key_) * call_.d_key);
    float* values = work_.value_panels.get(static_cast<size_t>(padded_key_) * padded_value_);
    run_tasks((padded_key_ + kKeysPerPackTask - 1) / kKeysPerPackTask, op_.n_thread, [&](int task, int thread) {
      const int begin = task * kKeysPerPackTask, end = std::min(begin + kKeysPerPackTask, padded_key_);
      float* row = scratch(thread).row;
      int packed = begin;
      op_.over_runs(head_kv, begin, std::min(end, call_.n_key), [&](const Run& run, int first, int last) {
        clear(packed, first, keys, values);
        pack_run(run, stream, head_kv, first, last, keys, row);
        kernels_.pack_values(run.v, stream, head_kv, first - run.begin, last - first, first, call_.d_value, padded_key_, values, row);
        packed = last;
      });
      clear(packed, end, keys, values);
    });
  }

  // Many queries: the keys are turned back instead.
  void pack_run(const Run& run, int stream, int head_kv, int first, int last, float* keys, float* row) const {
    if (run.turn < 0) return kernels_.pack_keys(run.k, stream, head_kv, first - run.begin, last - first, first, call_.d_key, keys, row);
    float* turned = row + call_.d_key;  // decode_rows writes a row, pack_keys needs none for floats
    const Rows floats{.data = reinterpret_cast<const std::byte*>(turned)};
    Rows rows = run.k;
    rows.data = run.k.row(stream, head_kv, 0);
    for (int k = first; k < last; ++k) {
      kernels_.decode_rows(rows, 0, 1, k - run.begin, 1, call_.d_key, call_.d_key, turned);
      call_.turns.apply(run.turn, /*back=*/true, turned);
      kernels_.pack_keys(floats, 0, 0, 0, 1, k, call_.d_key, keys, row);
    }
  }

  // Keys that nobody has: masked ones, and those that fill the last panel.
  void clear(int begin, int end, float* keys, float* values) const {
    const int panel = kernels_.panel;
    for (int k = begin; k < end; ++k) {
      for (int d = 0; d < call_.d_key; ++d) keys[(static_cast<size_t>(k / panel) * call_.d_key + d) * panel + k % panel] = 0;
      for (int d = 0; d < padded_value_; d += panel) std::fill_n(values + (static_cast<size_t>(d / panel) * padded_key_ + k) * panel, panel, 0.0f);
    }
  }

  void work_through(int stream, int first_head, int head_of_group, int part, int thread) {
    const Scratch s = scratch(thread);
    const int begin = plan_.first_query(part), end = std::min(plan_.first_query(part + 1), call_.n_query);
    for (int first = begin; first < end; first += plan_.rows_per_tile) {
      const int head = first_head + head_of_group, n_row = std::min(plan_.rows_per_tile, end - first);
      const Operation::Keys keys = op_.visible(stream, head, first, n_row, kernels_.panel);
      const Tile tile{.stream = stream, .head = head, .slot = head_of_group * plan_.slots_per_head + part,
                      .first_query = first, .n_row = n_row, .key_begin = keys.begin, .key_end = keys.end,
                      .weights = s.weights,
                      .stride = static_cast<size_t>(round_up(keys.end, kernels_.panel) - keys.begin),
                      .entropy = s.of_rows.entropy, .largest_weight = s.of_rows.largest_weight,
                      .learned_sink_mass = s.of_rows.learned_sink_mass, .log_sum = s.of_rows.log_sum};
      scores(tile, s);
      op_.weigh_rows(tile, s.weights, s.of_rows);
      for (Probe* probe : op_.probes) probe->see(tile);
      weighted_values(tile, s);
    }
  }

  void scores(const Tile& tile, const Scratch& s) const {
    op_.scaled_queries(tile.stream, tile.head, tile.first_query, tile.n_row, call_.d_key, s.queries);
    kernels_.scores(s.queries, tile.n_row, call_.d_key, work_.key_panels.get(0), tile.key_begin / kernels_.panel,
                    round_up(tile.key_end, kernels_.panel) / kernels_.panel, s.weights, tile.stride);
  }

  void weighted_values(const Tile& tile, const Scratch& s) const {
    if (tile.key_begin >= tile.key_end) std::fill_n(s.values, static_cast<size_t>(tile.n_row) * padded_value_, 0.0f);
    kernels_.weighted_values(s.weights, tile.stride, tile.n_row, tile.key_begin, tile.key_end, padded_key_,
                             work_.value_panels.get(0), call_.d_value, s.values);
    for (int r = 0; r < tile.n_row; ++r) {
      float* out = call_.output(tile.stream, tile.first_query + r, tile.head);
      std::copy_n(s.values + static_cast<size_t>(r) * padded_value_, call_.d_value, out);
      op_.add_learned_value(tile.head, s.of_rows.learned_sink_mass[r], out);
    }
  }

  Operation& op_;
  const Call& call_;
  const Kernels& kernels_;
  Workspace& work_;
  const Plan plan_;
  const int padded_key_, padded_value_;
};

}  // namespace

void attend_by_tiles(Operation& operation) { ByTiles(operation).run(); }

}  // namespace sinkscope::attention
