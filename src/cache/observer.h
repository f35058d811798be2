// How much attention kept rows receive: what score policies choose by.
#pragma once

#include <algorithm>
#include <vector>

#include "attention/columns.h"
#include "cache/memory.h"
#include "sinkscope/probe.h"

namespace sinkscope::cache {

// What a policy must know: which queries are looked at, and what is remembered of each row.
struct Observe {
  int n_last = 0;        // the last so many, over batches, of which small ones count together; 0: none
  bool all = false;      // every query that ever was, added up (H2O)
  bool queries = false;  // what the queries themselves are like: Layer::queries
  bool notes = false;    // a number for each row: Head::notes()
  bool any() const { return all || n_last > 0; }
  // Queries of batches that share an observation, at most: so there are few, also where tokens come one by one.
  int together() const { return n_last / 4; }
  // Observations of a head, at most: two neighbours have more queries than `together`, and one comes before the oldest goes.
  int n_observation() const { return all ? 1 : n_last > 0 ? std::min(n_last, 8) + 2 : 0; }
};

class Observer : public Probe {
 public:
  Observer(const attention::Kernels& kernels, Observe observe) : observe_(observe), columns_(kernels) {}

  void begin(const AttentionShape& shape) override;
  void see(const Tile& tile) override;
  void merge(int stream, int first_head, int n_head) override;

  // After the batch's rows have joined the layer: adds what was seen. The keys of the operation were the rows of the
  // head that has most, then the batch.
  void add_to(Layer& layer);

 private:
  // Queries of the batch that count, from this one on.
  int first_query() const { return observe_.all ? 0 : std::max(0, shape_.n_query - observe_.n_last); }

  Observe observe_;
  AttentionShape shape_;
  attention::ColumnSlots columns_;
  std::vector<double> mass_;  // [n_head_kv, n_key]
};

}  // namespace sinkscope::cache
