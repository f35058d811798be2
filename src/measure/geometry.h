// Why keys are met as they are: lengths and angles of queries and keys, for the sinks of a head against all other keys.
// Formulas: docs/metrics.md.
#pragma once

#include <span>
#include <vector>

#include "backend/device.h"
#include "measure/recorder.h"

namespace sinkscope::measure {

// Of one head: sums over queries that see a sink and another key, of means over the keys; mean() makes means of them.
struct HeadGeometry {
  struct Keys {
    double norm = 0;                  // length of the key
    double cos = 0, cos_unrotated = 0;  // with the query; as they were before RoPE
    double logit = 0;                 // scaled, before soft cap and mask
  };
  int64_t n_row = 0, n_query = 0;     // queries that see both, and all
  int n_prompt = 0, n_sink_prompt = 0;  // prompts, and those in which the head has a sink: elsewhere the first key is looked at
  double query_norm = 0;
  Keys sinks, others;
  double null_mass = 0;               // that softmax-off-by-one would leave on no key, over all queries
  double output_share = 0;            // || part from the sinks' values || / (that + || the rest ||)
  // sinks.logit - others.logit, told apart: scale |q| times the difference of lengths at the mean angle, of angles at the mean length,
  // and what is left (lengths, angles and queries vary together).
  HeadGeometry mean() const;
  double gap() const { return sinks.logit - others.logit; }
  double gap_by_norm(double scale) const { return scale * query_norm * (sinks.norm - others.norm) * (sinks.cos + others.cos) / 2; }
  double gap_by_angle(double scale) const { return scale * query_norm * (sinks.cos - others.cos) * (sinks.norm + others.norm) / 2; }
};

struct LayerGeometry {
  float scale = 1;
  bool rotated = false;               // RoPE whose angles are known: cos_unrotated differs
  std::vector<HeadGeometry> heads;    // over all prompts so far; empty: no attention was seen
  int n_head_kv = 0;
  std::vector<float> key_norm, value_norm;  // [n_head_kv, n_token] of the present prompt
};

// Looks at each operation when `recorder`, a probe of the same session, has seen it: who is a sink follows from its columns.
class Geometry : public Probe, public backend::CallHook {
 public:
  Geometry(const Recorder& recorder, float epsilon, int min_rows, int n_thread) : recorder_(recorder), epsilon_(epsilon), min_rows_(min_rows), n_thread_(n_thread) {}

  void start(int n_token);
  std::span<const LayerGeometry> layers() const { return layers_; }

  void begin(const AttentionShape& shape) override;
  void see(const Tile& tile) override;
  void merge(int, int, int) override {}
  void after(const attention::Call& call, const backend::Rope& rope, const attention::Kernels& kernels) override;

 private:
  struct Keys;
  void look(const attention::Call& call, const Keys& keys, const attention::Turns& turns, int head, HeadGeometry& to) const;

  const Recorder& recorder_;
  float epsilon_;
  int min_rows_, n_thread_, n_token_ = 0;
  std::vector<LayerGeometry> layers_;
  const AttentionShape* shape_ = nullptr;
  std::vector<float> log_sum_;        // [n_head, n_query] of the present operation
  std::vector<RowView> rows_;         // [n_query]
};

}  // namespace sinkscope::measure
