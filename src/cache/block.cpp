#include "cache/block.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace sinkscope::cache {
namespace {

std::byte* bytes_of(const attention::Rows& rows) { return const_cast<std::byte*>(rows.data); }

size_t channel_bytes(const Storage& storage, bool settled) {
  return has_channels(storage.coding_of(settled).key) ? storage.d_key * sizeof(attention::Grid) : 0;
}

}  // namespace

bool Storage::is_exact(int32_t position) const { return std::ranges::binary_search(*exact, position); }

size_t Block::data_bytes(const Storage& storage, bool settled, int capacity) {
  const Coding& c = storage.coding_of(settled);
  return capacity * (row_bytes(c.key, storage.d_key) + row_bytes(c.value, storage.d_value)) + channel_bytes(storage, settled);
}

void Block::set_position(int row, int32_t position) {
  if (row == 0) first_ = position;
  else after_[row - 1] = static_cast<uint8_t>(position - first_);
}

attention::Rows Block::keys(int row) const {
  const attention::Element element = storage_->coding_of(settled_).key;
  const size_t stride = row_bytes(element, storage_->d_key);
  return {.data = begin() + row * stride, .key_stride = stride, .element = element,
          .channels = has_channels(element) ? reinterpret_cast<const attention::Grid*>(begin() + capacity_ * stride) : nullptr};
}

attention::Rows Block::values(int row) const {
  const Coding& c = storage_->coding_of(settled_);
  const size_t stride = row_bytes(c.value, storage_->d_value);
  const size_t before = capacity_ * row_bytes(c.key, storage_->d_key) + channel_bytes(*storage_, settled_);
  return {.data = begin() + before + row * stride, .key_stride = stride, .element = c.value};
}

std::span<std::byte> Block::data() { return {begin(), data_bytes(*storage_, settled_, capacity_)}; }

BlockPtr::BlockPtr(const Storage& storage, bool settled, int capacity) {
  block_ = new (storage.slabs->take(sizeof(Block) + Block::data_bytes(storage, settled, capacity))) Block(storage, settled, capacity);
  std::ranges::fill(block_->data(), std::byte{0});
}

BlockPtr::~BlockPtr() {
  if (!block_ || --block_->n_owner_ > 0) return;
  Slabs& slabs = *block_->storage_->slabs;
  const size_t n = block_->bytes();
  block_->~Block();
  slabs.give_back(reinterpret_cast<std::byte*>(block_), n);
}

BlockPtr BlockPtr::copy() const {
  BlockPtr copy(*block_->storage_, block_->settled_, block_->capacity_);
  std::ranges::copy(block_->data(), copy->data().begin());
  copy->first_ = block_->first_;
  std::ranges::copy(block_->after_, copy->after_);
  return copy;
}

bool BlockPtr::in_closed_slab() const { return block_->storage_->slabs->is_closed(reinterpret_cast<const std::byte*>(block_), block_->bytes()); }

BlockPtr BlockPtr::with_rows(std::span<const int> rows, int capacity) const {
  BlockPtr copy(*block_->storage_, block_->settled_, capacity);
  if (const size_t n = channel_bytes(*block_->storage_, block_->settled_))
    std::memcpy(const_cast<attention::Grid*>(copy->keys().channels), block_->keys().channels, n);
  for (int i = 0; i < static_cast<int>(rows.size()); ++i) copy_row(*block_, rows[i], *copy, i);
  return copy;
}

void copy_row(const Block& source, int from, Block& target, int to) {
  std::memcpy(bytes_of(target.keys(to)), source.keys(from).data, source.keys().key_stride);
  std::memcpy(bytes_of(target.values(to)), source.values(from).data, source.values().key_stride);
  target.set_position(to, source.position(from));
}

}  // namespace sinkscope::cache
