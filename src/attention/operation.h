// What the two ways of computing an attention operation share: attend() makes it, one of them computes it.
#pragma once

#include <algorithm>
#include <span>

#include "attention/attend.h"
#include "attention/kernels.h"
#include "attention/team.h"

namespace sinkscope::attention {

inline int round_up(int n, int step) { return (n + step - 1) / step * step; }

struct Operation {
  const Call& call;
  std::span<Probe* const> probes;
  const Kernels& kernels;
  int n_thread;
  Workspace& work;
  AttentionShape shape;  // slots are the way's own

  int group() const { return call.n_head / call.n_head_kv; }  // query heads that share keys and values

  const RowView& view(int stream, int head, int query) const {
    return shape.rows[static_cast<size_t>(shape.plane(stream, head)) * call.n_query + query];
  }

  // Calls body(run, begin, end) for the keys [begin, end) of a KV head, run by run; row = key - run.begin.
  template <class Body>
  void over_runs(int head_kv, int begin, int end, const Body& body) const {
    if (call.runs.empty()) return body(Run{.begin = 0, .end = call.n_key, .k = call.k, .v = call.v}, begin, end);
    const std::span<const Run> runs = call.runs[head_kv];
    for (auto run = std::ranges::partition_point(runs, [&](const Run& r) { return r.end <= begin; }); run != runs.end() && run->begin < end; ++run)
      body(*run, std::max(begin, run->begin), std::min(end, run->end));
  }

  // The keys that any of these queries can see, from the start of a multiple of `step` on.
  struct Keys {
    int begin, end;
  };
  Keys visible(int stream, int head, int first_query, int n_query, int step) const;

  // Scaled queries of a head, [n_query, d_stride] with zeros behind d_key.
  void scaled_queries(int stream, int head, int first_query, int n_query, int d_stride, float* to) const;

  // Logits of a tile, [n_row, stride], become weights in place, as the head's edit wants them.
  void weigh_rows(const Tile& tile, float* weights, const RowValues& values) const;

  // The value of the learned column joins the output of one query, by the column's weight.
  void add_learned_value(int head, float mass, float* out) const;

 private:
  float learned_logit(int stream, int head, int query) const;
  void weigh_row(const Tile& tile, const RowTask& task, float* row, const RowValues& values) const;
  void edited_row(const HeadEdit& edit, const Tile& tile, int r, RowTask task, float* row, const RowValues& values) const;
  static void calm(const HeadEdit& edit, float* weights, int begin, int end, const RowValues& values);
};

// Many queries: keys and values are packed into panels, and tiles of weights stay in the L2 cache.
void attend_by_tiles(Operation& operation);

// Few queries: keys and values are read once, where they lie, for all query heads that share them.
void attend_by_keys(Operation& operation);

}  // namespace sinkscope::attention
