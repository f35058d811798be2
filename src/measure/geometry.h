// Why keys are met as they are: lengths and angles of queries and keys, for the sinks of a head against all other keys.
// Formulas: docs/metrics.md.
#pragma once

#include <map>
#include <set>
#include <span>
#include <vector>

#include "backend/device.h"
#include "measure/recorder.h"

namespace sinkscope::measure {

// Of one head: sums over pairs of a query and a key that it sees, for sinks and all other keys; mean() makes means of them.
struct HeadGeometry {
  struct Keys {
    double n_pair = 0;
    double norm = 0;                  // length of the key
    double cos = 0, cos_unrotated = 0;  // with the query; as they were before RoPE
    double logit = 0;                 // scaled, before soft cap and mask
  };
  int64_t n_query = 0;
  int n_prompt = 0, n_sink_prompt = 0;  // prompts, and those in which the head has a sink: elsewhere the first key is looked at
  double query_norm = 0;
  Keys sinks, others;
  double null_mass = 0;               // that softmax-off-by-one would leave on no key, over all queries
  double sink_output = 0, output = 0;  // attention times the length of the value, over sinks and over all keys
  HeadGeometry mean() const;
  // sinks.logit - others.logit, told apart: scale |q| times the difference of lengths at the mean angle, of angles at the mean length,
  // and what is left (lengths, angles and queries vary together).
  double gap() const { return sinks.logit - others.logit; }
  double gap_by_norm(double scale) const { return scale * query_norm * (sinks.norm - others.norm) * (sinks.cos + others.cos) / 2; }
  double gap_by_angle(double scale) const { return scale * query_norm * (sinks.cos - others.cos) * (sinks.norm + others.norm) / 2; }
  // Of the output, by attention times length of value (Kobayashi et al., 2004.10102).
  double output_share() const { return output > 0 ? sink_output / output : 0; }
};

struct LayerGeometry {
  float scale = 1;
  bool rotated = false;               // RoPE whose angles are known: cos_unrotated differs
  std::vector<HeadGeometry> heads;    // over all prompts so far; empty: no attention was seen
  int n_head_kv = 0;
  // Of the present prompt.
  std::vector<float> key_norm, value_norm;  // [n_head_kv, n_token]
  std::vector<float> n_row;                 // [n_token] queries that see the key
  std::vector<float> logit, cos, cos_unrotated;  // [n_head, n_token] sums over them
};

// Looks at each operation behind the attention itself. What a key is to the queries is summed for every key, so that it does not
// matter in which batches they come; who is a sink is asked when the prompt is over.
class Geometry : public Probe, public backend::CallHook {
 public:
  explicit Geometry(int n_thread) : n_thread_(n_thread) {}

  void start(int n_token);
  // The prompt is over; `recorder` has seen it too.
  void finish(const Recorder& recorder, float epsilon, int min_rows);
  std::span<const LayerGeometry> layers() const { return layers_; }
  // Layers whose heads have masks of their own, which nobody looks at here.
  const std::set<int>& skipped() const { return skipped_; }

  void begin(const AttentionShape& shape) override;
  void see(const Tile& tile) override;
  void merge(int, int, int) override {}
  void after(const attention::Call& call, const backend::Rope& rope, const attention::Kernels& kernels) override;

 private:
  struct Run {
    int begin = 0, end = 0;           // queries of a batch that see a key
  };
  // Sums of rows before each one, so that the sum over any run of them costs one difference.
  class Prefix {
   public:
    void start(int n, int d);
    void put(int row, const float* values, double factor);
    double dot_with(const float* values, int begin, int end) const;

   private:
    int d_ = 0;
    std::vector<double> sums_;        // [n + 1, d]
  };
  // Of all KV heads.
  struct Keys {
    void read(const attention::Call& call, const attention::Turns& turns, const attention::Kernels& kernels, int n, int n_thread);
    std::vector<float> k, unrotated;      // [n_head_kv, n, d_key]; as they were before RoPE
    std::vector<float> norm, value_norm;  // [n_head_kv, n]
  };
  // Of a thread; kept, since fresh memory costs more than what is computed in it.
  struct Queries {
    Prefix whole, units, unrotated;   // sums of the queries, of their directions, and of these before RoPE
    std::vector<float> before;        // [d_key]
  };
  struct Angles {
    int n_position = 0;
    std::vector<float> cos, sin;      // [n_position, pairs]
  };
  const Angles& angles_up_to(int n_position, const std::vector<double>& per_position);
  void look(const attention::Call& call, const attention::Turns& turns, int head, std::span<const Run> runs, Queries& queries, LayerGeometry& layer) const;

  int n_thread_, n_token_ = 0;
  std::vector<LayerGeometry> layers_;
  std::set<int> skipped_;
  const AttentionShape* shape_ = nullptr;
  std::vector<float> log_sum_;        // [n_head, n_query] of the present operation
  std::vector<RowView> rows_;         // [n_query]
  Keys keys_;                         // of the present operation
  std::vector<Queries> queries_;      // [n_thread]
  std::map<std::vector<double>, Angles> angles_;  // by angle per position: layers of one model may differ
};

}  // namespace sinkscope::measure
