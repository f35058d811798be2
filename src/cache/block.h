// A few rows of a KV head in one piece of memory, shared by reference between forks of a sequence.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cache/coding.h"
#include "cache/slabs.h"

namespace sinkscope::cache {

constexpr int kBlockRows = 16;  // most rows of a block; with q8c and q4c, the rows that share the grid of a channel

// What the blocks of a layer have in common.
struct Storage {
  const attention::Kernels* kernels;
  int d_key, d_value;
  Precision precision;
  std::shared_ptr<const std::vector<int32_t>> exact;   // positions, in order, whose rows stay F16 whatever the precision
  std::shared_ptr<Slabs> slabs;                        // of all layers and forks

  // Of rows that come, or of those that have settled.
  const Coding& coding_of(bool settled) const {
    return coding(settled ? precision : coding(precision).settles ? Precision::f16 : precision);
  }
  bool is_exact(int32_t position) const;
};

// The head of a block; its rows follow in memory: keys, grids of channels where there are any, values.
class Block {
 public:
  int32_t position(int row) const { return row == 0 ? first_ : first_ + after_[row - 1]; }
  // Whether a row at this position may stand in the same block as row 0.
  bool reaches(int32_t position) const { return position - first_ <= UINT8_MAX; }
  void set_position(int row, int32_t position);
  int capacity() const { return capacity_; }
  bool settled() const { return settled_; }
  // Rows from `row` on, for the kernels.
  attention::Rows keys(int row = 0) const;
  attention::Rows values(int row = 0) const;
  // The bytes of all rows.
  std::span<std::byte> data();
  size_t bytes() const { return sizeof(Block) + data_bytes(*storage_, settled_, capacity_); }

  static size_t data_bytes(const Storage& storage, bool settled, int capacity);

 private:
  friend class BlockPtr;
  Block(const Storage& storage, bool settled, int capacity)
      : storage_(&storage), capacity_(static_cast<uint8_t>(capacity) & 0x7F), settled_(settled) {}
  std::byte* begin() const { return reinterpret_cast<std::byte*>(const_cast<Block*>(this) + 1); }

  const Storage* storage_;
  std::atomic<uint32_t> n_owner_ = 1;
  int32_t first_ = 0;                    // position of row 0
  uint8_t after_[kBlockRows - 1] = {};   // of the other rows, less the first
  uint8_t capacity_ : 7, settled_ : 1;
};
static_assert(sizeof(Block) == 32);

class BlockPtr {
 public:
  // Rows are 0. `storage` outlives the block.
  BlockPtr(const Storage& storage, bool settled, int capacity);
  BlockPtr(const BlockPtr& other) noexcept : block_(other.block_) { ++block_->n_owner_; }
  BlockPtr(BlockPtr&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  BlockPtr& operator=(BlockPtr other) noexcept { return std::swap(block_, other.block_), *this; }
  ~BlockPtr();

  Block* operator->() const { return block_; }
  Block& operator*() const { return *block_; }
  bool shared() const { return block_->n_owner_ > 1; }
  void prefetch() const { __builtin_prefetch(block_); }
  // The block as it is, elsewhere.
  BlockPtr copy() const;
  // Whether it lies where no others should join it.
  bool in_closed_slab() const;
  // Some rows as they are, in a block of their own that has room for `capacity`.
  BlockPtr with_rows(std::span<const int> rows, int capacity) const;

 private:
  Block* block_;
};

// Row `to` of a block becomes row `from` of another one that is kept alike; the grids of channels stay.
void copy_row(const Block& source, int from, Block& target, int to);

}  // namespace sinkscope::cache
