// Owned KV memory of one sequence: each layer and KV head keeps its own rows, as many as a policy leaves it.
//
// Rows lie in blocks of kBlockRows, in order of position. A row that is dropped leaves a hole in its block; a block
// without rows is given back, and a head with more holes than a sixteenth of its rows, or two blocks, is packed anew. Blocks
// are shared by reference between forks of a sequence; what is written to is copied first.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "attention/kernels.h"

namespace sinkscope::cache {

constexpr int kBlockRows = 16;
constexpr size_t kSharedCount = 16;  // of a shared_ptr, beside the block

// How a row is kept.
enum class Precision { f16, f32 };

// Sizes of a layer's rows.
struct RowShape {
  int d_key = 0, d_value = 0;
  Precision precision = Precision::f16;
  bool operator==(const RowShape&) const = default;

  size_t number_bytes() const { return precision == Precision::f16 ? 2 : 4; }
  size_t key_bytes() const { return d_key * number_bytes(); }
  size_t value_bytes() const { return d_value * number_bytes(); }
  attention::Element element() const { return precision == Precision::f16 ? attention::Element::f16 : attention::Element::f32; }
};

// Bytes that the blocks of a memory and its forks take.
using Allocated = std::shared_ptr<size_t>;

// Keys, then values, then positions of up to kBlockRows rows: one aligned piece of memory.
class Block {
 public:
  Block(const RowShape& shape, Allocated allocated);
  Block(const Block& other);
  ~Block();
  Block& operator=(const Block&) = delete;

  std::byte* key(int row) { return data_ + row * shape_.key_bytes(); }
  std::byte* value(int row) { return data_ + kBlockRows * shape_.key_bytes() + row * shape_.value_bytes(); }
  int32_t& position(int row) { return reinterpret_cast<int32_t*>(data_ + kBlockRows * (shape_.key_bytes() + shape_.value_bytes()))[row]; }
  static size_t bytes(const RowShape& shape);

 private:
  RowShape shape_;
  Allocated allocated_;
  std::byte* data_;
};

// Attention that the rows of a head received from some queries, mean over the query heads that share it.
struct Observation {
  int n_query = 0;
  std::vector<float> mass;  // [n_row]
};

// The rows of one layer and KV head, in order of position.
class Head {
 public:
  int n_row() const { return n_row_; }
  // Positions of the rows, [n_row].
  std::vector<int32_t> positions() const;
  // Behind the last row: d_key and d_value floats.
  void append(const attention::Kernels& kernels, const RowShape& shape, const Allocated& allocated, int32_t position, const float* key,
              const float* value);
  // The same with a row as it is kept: key_bytes and value_bytes.
  void append_kept(const RowShape& shape, const Allocated& allocated, int32_t position, const std::byte* key, const std::byte* value);
  // Keeps the rows for which kept[i] is true, [n_row].
  void keep(const RowShape& shape, const Allocated& allocated, const std::vector<bool>& kept);
  // For rows that lie one after the other in a block, from its row `in_block` on.
  void over_runs(const std::function<void(int first, int n, Block& block, int in_block)>& body) const;
  // What was seen of these rows, the newest last; rows that came later are missing at the end.
  std::vector<Observation>& observations() { return observations_; }
  const std::vector<Observation>& observations() const { return observations_; }
  int n_block() const { return static_cast<int>(blocks_.size()); }
  // Bytes beside the blocks themselves.
  size_t bookkeeping() const;

 private:
  struct Part {
    std::shared_ptr<Block> block;
    uint32_t live = 0;  // bit i: row i is kept
    int n_used = 0;     // rows that were ever written
  };
  Part& with_room(const RowShape& shape, const Allocated& allocated);
  void take_row(Part& part, int32_t position);
  void pack(const RowShape& shape, const Allocated& allocated);

  std::vector<Part> blocks_;
  std::vector<Observation> observations_;
  int n_row_ = 0;
};

struct Layer {
  RowShape shape;
  std::vector<Head> heads;
};

class Memory {
 public:
  explicit Memory(const attention::Kernels& kernels, Precision precision = Precision::f16) : kernels_(&kernels), precision_(precision) {}

  // A fork shares all blocks by reference.
  Memory(const Memory&) = default;
  Memory& operator=(const Memory&) = default;

  void clear();
  // Makes the layer on first use. Throws InternalError when its sizes change.
  Layer& layer(int index, int n_head_kv, int d_key, int d_value);
  std::span<Layer> layers() { return layers_; }
  std::span<const Layer> layers() const { return layers_; }
  Precision precision() const { return precision_; }
  void append(Layer& layer, int head, int32_t position, const float* key, const float* value) {
    layer.heads[head].append(*kernels_, layer.shape, allocated_, position, key, value);
  }
  void keep(Layer& layer, int head, const std::vector<bool>& kept) { layer.heads[head].keep(layer.shape, allocated_, kept); }

  // Positions from `first` on were counted from `base`.
  struct Epoch {
    int64_t first, base;
  };
  const std::vector<Epoch>& epochs() const { return epochs_; }
  // A memory that was saved: layers come by layer() and restore_row().
  void restore(int64_t n_past, std::vector<Epoch> epochs) { n_past_ = n_past, epochs_ = std::move(epochs); }
  void restore_row(Layer& layer, int head, int32_t position, const std::byte* key, const std::byte* value) {
    layer.heads[head].append_kept(layer.shape, allocated_, position, key, value);
  }

  // Position of the next token in the sequence: what was ever seen, not what is kept.
  int64_t n_past() const { return n_past_; }
  // Positions that the model is told count from a base, so that its angles stay small; it moves between batches.
  void start_batch();
  // For models whose positions cannot be moved.
  void hold_base() { holds_base_ = true; }
  void end_batch(int n_token) { n_past_ += n_token; }
  int64_t base() const { return epochs_.back().base; }
  // The base at the time when this position was computed.
  int64_t base_of(int64_t position) const;

  // Allocated by this memory and its forks together: keys, values, positions, and what blocks and heads take themselves.
  size_t bytes() const;

 private:
  const attention::Kernels* kernels_;
  Precision precision_;
  Allocated allocated_ = std::make_shared<size_t>(0);
  std::vector<Layer> layers_;  // by index; without heads: not seen yet
  int64_t n_past_ = 0;
  bool holds_base_ = false;
  std::vector<Epoch> epochs_ = {{0, 0}};
};

}  // namespace sinkscope::cache
