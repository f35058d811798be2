// Owned KV memory of one sequence: each layer and KV head keeps its own rows, as many as a policy leaves it.
//
// Rows lie in blocks, in order of position. A row that is dropped leaves a hole in its block; a block without rows is given
// back, and a head with more holes than a sixteenth of its rows, or two blocks, is packed anew. Blocks lie in slabs, which are
// packed too where more than a sixteenth of their bytes is free. Nothing is rounded again by that. Blocks are shared by reference between forks of a sequence; what is written to is copied first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cache/block.h"
#include "cache/queries.h"

namespace sinkscope::cache {

// Attention that the rows of a head received from some queries, mean over the query heads that share it.
struct Observation {
  int n_query = 0;
  std::vector<float> mass;  // [n_row]
};

// The rows of one layer and KV head, in order of position.
class Head {
 public:
  struct Part {
    BlockPtr block;
    uint16_t live = 0;   // bit i: row i is kept
    uint8_t n_used = 0;  // rows that were ever written
  };

  explicit Head(std::shared_ptr<const Storage> storage) : storage_(std::move(storage)) {}
  Head(const Head&) = default;
  Head(Head&&) noexcept = default;
  Head& operator=(Head other) noexcept;  // blocks go before the storage that they know

  int n_row() const { return n_row_; }
  // Positions of the rows, [n_row].
  std::vector<int32_t> positions() const;
  // Keys and values of the rows as floats, [n_row, d_key] and [n_row, d_value].
  std::vector<float> keys() const;
  std::vector<float> values() const;
  // Behind the last row: d_key and d_value floats.
  void append(int32_t position, const float* key, const float* value);
  // Keeps the rows for which kept[i] is true, [n_row].
  void keep(const std::vector<bool>& kept);
  // For rows that lie one after the other in a block, from its row `in_block` on.
  void over_runs(const std::function<void(int first, int n, const Block& block, int in_block)>& body) const;
  // What was seen of these rows, the newest last; rows that came later are missing at the end.
  std::vector<Observation>& observations() { return observations_; }
  const std::vector<Observation>& observations() const { return observations_; }
  // A number for each row that a policy wants to remember; rows that came later are missing at the end.
  std::vector<float>& notes() { return notes_; }
  const std::vector<float>& notes() const { return notes_; }
  // Blocks in closed slabs move to others, but for those that are shared.
  void leave_closed_slabs();
  // For saving: restore() puts a part behind the others.
  std::span<const Part> parts() const { return parts_; }
  void restore(Part part);
  // Bytes beside the blocks themselves.
  size_t bookkeeping() const;

 private:
  Part& with_room(int32_t position);
  void add(Part part);
  void settle_last();
  void pack();
  std::vector<float> decoded(attention::Rows (Block::*rows)(int) const, int d) const;

  std::shared_ptr<const Storage> storage_;
  std::vector<Part> parts_;
  std::vector<Observation> observations_;
  std::vector<float> notes_;
  int n_row_ = 0;
};

struct Layer {
  std::shared_ptr<const Storage> storage;
  std::vector<Head> heads;
  std::optional<Queries> queries = {};  // where a policy asks for them
};

class Memory {
 public:
  // One in so many bytes of slabs may be free at the end of a batch.
  static constexpr size_t kFreeShare = 16;

  // Rows at the positions `exact`, in order, stay F16 where the precision is coarser.
  explicit Memory(const attention::Kernels& kernels, Precision precision = Precision::f16, std::vector<int32_t> exact = {})
      : kernels_(&kernels), precision_(precision), exact_(std::make_shared<const std::vector<int32_t>>(std::move(exact))) {}

  // A fork shares all blocks by reference.
  Memory(const Memory&) = default;
  Memory& operator=(const Memory&) = default;

  void clear();
  // Makes the layer on first use. Throws InternalError when its sizes change, InputError where the precision cannot have them.
  Layer& layer(int index, int n_head_kv, int d_key, int d_value);
  std::span<Layer> layers() { return layers_; }
  std::span<const Layer> layers() const { return layers_; }
  Precision precision() const { return precision_; }

  // Positions from `first` on were counted from `base`.
  struct Epoch {
    int64_t first, base;
  };
  const std::vector<Epoch>& epochs() const { return epochs_; }
  // A memory that was saved: layers come by layer() and Head::restore().
  void restore(int64_t n_past, std::vector<Epoch> epochs) { n_past_ = n_past, epochs_ = std::move(epochs); }

  // Position of the next token in the sequence: what was ever seen, not what is kept.
  int64_t n_past() const { return n_past_; }
  // Positions that the model is told count from a base, so that its angles stay small; it moves between batches.
  void start_batch();
  // For models whose positions cannot be moved.
  void hold_base() { holds_base_ = true; }
  bool holds_base() const { return holds_base_; }
  void end_batch(int n_token);
  int64_t base() const { return epochs_.back().base; }
  // The base at the time when this position was computed.
  int64_t base_of(int64_t position) const;

  // Allocated by this memory and its forks together: keys, values, positions, what blocks and heads take themselves, and what is
  // free in slabs.
  size_t bytes() const;

 private:
  const attention::Kernels* kernels_;
  Precision precision_;
  std::shared_ptr<const std::vector<int32_t>> exact_;
  std::shared_ptr<Slabs> slabs_ = std::make_shared<Slabs>();
  std::vector<Layer> layers_;  // by index; without heads: not seen yet
  int64_t n_past_ = 0;
  bool holds_base_ = false;
  std::vector<Epoch> epochs_ = {{0, 0}};
};

}  // namespace sinkscope::cache
