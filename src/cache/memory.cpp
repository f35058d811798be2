#include "cache/memory.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include <hwy/aligned_allocator.h>

#include "sinkscope/error.h"

namespace sinkscope::cache {
namespace {

constexpr int64_t kEpochTokens = 4096;  // positions up to here keep float angles exact to about 1e-4

void encode(const attention::Kernels& kernels, const float* from, int n, Precision precision, std::byte* to) {
  if (precision == Precision::f32) std::memcpy(to, from, n * sizeof(float));
  else kernels.to_halves(from, n, reinterpret_cast<uint16_t*>(to));
}

}  // namespace

size_t Block::bytes(const RowShape& shape) {
  return kBlockRows * (shape.key_bytes() + shape.value_bytes() + sizeof(int32_t));
}

Block::Block(const RowShape& shape, Allocated allocated)
    : shape_(shape), allocated_(std::move(allocated)),
      data_(static_cast<std::byte*>(hwy::AllocateAlignedBytes(bytes(shape), nullptr, nullptr))) {
  if (!data_) throw std::bad_alloc();
  *allocated_ += bytes(shape_);
}

Block::Block(const Block& other) : Block(other.shape_, other.allocated_) { std::memcpy(data_, other.data_, bytes(shape_)); }

Block::~Block() {
  *allocated_ -= bytes(shape_);
  hwy::FreeAlignedBytes(data_, nullptr, nullptr);
}

std::vector<int32_t> Head::positions() const {
  std::vector<int32_t> positions;
  positions.reserve(n_row_);
  over_runs([&](int, int n, Block& block, int at) {
    for (int i = at; i < at + n; ++i) positions.push_back(block.position(i));
  });
  return positions;
}

Head::Part& Head::with_room(const RowShape& shape, const Allocated& allocated) {
  if (blocks_.empty() || blocks_.back().n_used == kBlockRows) blocks_.push_back({std::make_shared<Block>(shape, allocated), 0, 0});
  Part& part = blocks_.back();
  if (part.block.use_count() > 1) part.block = std::make_shared<Block>(*part.block);
  return part;
}

void Head::append(const attention::Kernels& kernels, const RowShape& shape, const Allocated& allocated, int32_t position, const float* key,
                  const float* value) {
  Part& part = with_room(shape, allocated);
  encode(kernels, key, shape.d_key, shape.precision, part.block->key(part.n_used));
  encode(kernels, value, shape.d_value, shape.precision, part.block->value(part.n_used));
  take_row(part, position);
}

void Head::append_kept(const RowShape& shape, const Allocated& allocated, int32_t position, const std::byte* key, const std::byte* value) {
  Part& part = with_room(shape, allocated);
  std::memcpy(part.block->key(part.n_used), key, shape.key_bytes());
  std::memcpy(part.block->value(part.n_used), value, shape.value_bytes());
  take_row(part, position);
}

void Head::take_row(Part& part, int32_t position) {
  part.block->position(part.n_used) = position;
  part.live |= uint32_t{1} << part.n_used++;
  ++n_row_;
}

void Head::keep(const RowShape& shape, const Allocated& allocated, const std::vector<bool>& kept) {
  for (Observation& seen : observations_) {
    size_t n = 0;
    for (size_t i = 0; i < seen.mass.size(); ++i)
      if (kept[i]) seen.mass[n++] = seen.mass[i];
    seen.mass.resize(n);
  }
  int row = 0;
  for (Part& part : blocks_)
    for (uint32_t left = part.live; left; left &= left - 1, ++row)
      if (!kept[row]) part.live &= ~(left & -left), --n_row_;
  std::erase_if(blocks_, [&](const Part& part) { return part.live == 0 && (&part != &blocks_.back() || part.n_used == kBlockRows); });
  if ((n_block() - 1) * kBlockRows - n_row_ > std::max(n_row_ / 16, 2 * kBlockRows)) pack(shape, allocated);
}

void Head::pack(const RowShape& shape, const Allocated& allocated) {
  const std::vector<Part> before = std::exchange(blocks_, {});
  n_row_ = 0;
  for (const Part& from : before)
    for (uint32_t left = from.live; left; left &= left - 1) {
      const int row = std::countr_zero(left);
      append_kept(shape, allocated, from.block->position(row), from.block->key(row), from.block->value(row));
    }
}

void Head::over_runs(const std::function<void(int, int, Block&, int)>& body) const {
  int row = 0;
  for (const Part& part : blocks_)
    for (uint32_t left = part.live; left;) {
      const int at = std::countr_zero(left), n = std::countr_one(left >> at);
      body(row, n, *part.block, at);
      row += n;
      left &= ~(((uint32_t{1} << n) - 1) << at);
    }
}

size_t Head::bookkeeping() const {
  size_t n = blocks_.capacity() * sizeof(Part) + blocks_.size() * (sizeof(Block) + kSharedCount) + observations_.capacity() * sizeof(Observation);
  for (const Observation& seen : observations_) n += seen.mass.capacity() * sizeof(float);
  return n;
}

void Memory::clear() {
  layers_.clear();
  n_past_ = 0;
  epochs_ = {{0, 0}};
}

Layer& Memory::layer(int index, int n_head_kv, int d_key, int d_value) {
  if (index >= static_cast<int>(layers_.size())) layers_.resize(index + 1);
  Layer& layer = layers_[index];
  const RowShape shape{d_key, d_value, precision_};
  if (layer.heads.empty()) layer = {shape, std::vector<Head>(n_head_kv)};
  if (layer.shape != shape || static_cast<int>(layer.heads.size()) != n_head_kv) throw InternalError("a layer changed the size of its keys or values");
  return layer;
}

void Memory::start_batch() {
  if (!holds_base_ && n_past_ - base() >= kEpochTokens) epochs_.push_back({n_past_, n_past_});
}

int64_t Memory::base_of(int64_t position) const {
  return std::prev(std::upper_bound(epochs_.begin(), epochs_.end(), position, [](int64_t p, const Epoch& e) { return p < e.first; }))->base;
}

size_t Memory::bytes() const {
  size_t n = *allocated_ + epochs_.capacity() * sizeof(Epoch) + layers_.capacity() * sizeof(Layer);
  for (const Layer& layer : layers_)
    for (const Head& head : layer.heads) n += sizeof(Head) + head.bookkeeping();
  return n;
}

}  // namespace sinkscope::cache
