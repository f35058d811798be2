// Reading attention while it is computed.
//
// The kernel works through each attention operation in tiles: some queries of one head against all keys that
// any of them can see. A probe is shown every tile once, when its weights are finished and still in the cache.
// The T x T map never exists, so what a probe keeps is all that remains.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace sinkscope {

// The queries of one row can see the keys [begin, end). Keys inside may still be masked unless `plain`.
struct RowView {
  int begin = 0, end = 0;
  bool plain = true;  // no mask value inside but 0: every key is visible, no bias
};

// One attention operation: a layer's, for the tokens of one batch.
struct AttentionShape {
  int layer = 0;             // from 0
  int n_stream = 1;          // sequences that are kept apart; for one sequence: groups of heads (MiniMax-M3)
  int n_query = 0;           // per stream
  int n_key = 0;             // cells of the cache that the operation reads, per stream
  int n_head = 0, n_head_kv = 0;
  int d_key = 0, d_value = 0;
  // A head's tiles are shared out over slots: tiles of one slot come in order, different slots may come at once.
  int slots_per_head = 0;
  int n_slot = 0;            // of the heads that come together, as merge() says
  bool learned_sink = false; // a learned column takes part in every row's softmax: a logit, or a key and a value (KV bias)
  std::span<const RowView> rows;         // [n_plane, n_query], n_plane masks
  std::span<const uint32_t> key_n_row;   // [n_plane, n_key] queries that can see the key
  int n_plane_stream = 1, n_plane_head = 1;  // n_plane = n_plane_stream * n_plane_head

  int plane(int stream, int head) const { return stream % n_plane_stream * n_plane_head + head % n_plane_head; }
};

// Finished weights of one head: n_row consecutive queries against the keys [key_begin, key_end).
// A row sums to 1, or to 1 - learned_sink_mass, or with sigmoid attention to anything; what a query cannot see is 0; a query that sees
// nothing has a row of 0.
struct Tile {
  int stream, head;
  int slot;                        // 0 .. n_slot - 1
  int first_query, n_row;          // rows are the queries first_query ... of this operation
  int key_begin, key_end;
  const float* weights;            // [n_row, stride], column 0 is key_begin
  size_t stride;
  const float* entropy;            // [n_row] in nats, over the keys and the learned sink; with sigmoid attention, of shares of the row's sum
  const float* largest_weight;     // [n_row] of a key
  const float* learned_sink_mass;  // [n_row] share of the row that the learned sink takes, else 0
  const float* log_sum;            // [n_row] ln of the sum of e^logit, over the keys and the learned sink

  const float* row(int r) const { return weights + static_cast<size_t>(r) * stride; }
};

class Probe {
 public:
  virtual ~Probe() = default;
  // Before the tiles of an operation. `shape` lives until end().
  virtual void begin(const AttentionShape& shape) = 0;
  // From several threads at once, but never for the same slot; slots do not depend on the number of threads.
  virtual void see(const Tile& tile) = 0;
  // After all tiles of these heads: those that share keys and values or, for few queries, all of a stream.
  // slot = (head - first_head) * slots_per_head + 0, 1, ... Add up what the slots hold in their order: then the sum has
  // the same bits for any number of threads.
  virtual void merge(int stream, int first_head, int n_head) = 0;
  // After the operation.
  virtual void end() {}
  // In place of end() when the operation failed: something threw.
  virtual void abandon() {}
};

}  // namespace sinkscope
