#include "cache/memory.h"

#include <algorithm>
#include <bit>
#include <utility>

#include <fmt/format.h>

#include "sinkscope/error.h"

namespace sinkscope::cache {
namespace {

constexpr int64_t kEpochTokens = 4096;  // positions up to here keep float angles exact to about 1e-4
constexpr int kCodedUnit = 32;          // numbers that coarse precisions take at once

uint16_t all_of(int n) { return static_cast<uint16_t>((1u << n) - 1); }

std::vector<int> rows_of(const Head::Part& part) {
  std::vector<int> rows;
  for (unsigned left = part.live; left; left &= left - 1) rows.push_back(std::countr_zero(left));
  return rows;
}

// The part's rows alone, side by side, in a block as large as they are.
Head::Part shrunk(const Head::Part& part) {
  const std::vector<int> rows = rows_of(part);
  const int n = static_cast<int>(rows.size());
  return {part.block.with_rows(rows, n), all_of(n), static_cast<uint8_t>(n)};
}

// Rows that came as F16, as the storage keeps them.
BlockPtr settled(const Storage& storage, const BlockPtr& block, std::span<const int> rows) {
  const int n = static_cast<int>(rows.size());
  const BlockPtr source = block.with_rows(rows, n);
  BlockPtr target(storage, /*settled=*/true, n);
  const auto encode_rows = [&](const attention::Rows& from, int d, const attention::Rows& to) {
    std::vector<float> floats(static_cast<size_t>(n) * d);
    storage.kernels->decode_rows(from, 0, 1, 0, n, d, d, floats.data());
    encode(*storage.kernels, to.element, floats.data(), n, d, const_cast<std::byte*>(to.data), const_cast<attention::Grid*>(to.channels));
  };
  encode_rows(source->keys(), storage.d_key, target->keys());
  encode_rows(source->values(), storage.d_value, target->values());
  for (int i = 0; i < n; ++i) target->set_position(i, source->position(i));
  return target;
}

}  // namespace

Head& Head::operator=(Head other) noexcept {
  std::swap(parts_, other.parts_);
  std::swap(storage_, other.storage_);
  std::swap(observations_, other.observations_);
  std::swap(notes_, other.notes_);
  n_row_ = other.n_row_;
  return *this;
}

std::vector<int32_t> Head::positions() const {
  std::vector<int32_t> positions;
  positions.reserve(n_row_);
  over_runs([&](int, int n, const Block& block, int at) {
    for (int i = at; i < at + n; ++i) positions.push_back(block.position(i));
  });
  return positions;
}

std::vector<float> Head::decoded(attention::Rows (Block::*rows)(int) const, int d) const {
  std::vector<float> floats(static_cast<size_t>(n_row_) * d);
  over_runs([&](int first, int n, const Block& block, int at) {
    storage_->kernels->decode_rows((block.*rows)(at), 0, 1, 0, n, d, d, floats.data() + static_cast<size_t>(first) * d);
  });
  return floats;
}

std::vector<float> Head::keys() const { return decoded(&Block::keys, storage_->d_key); }
std::vector<float> Head::values() const { return decoded(&Block::values, storage_->d_value); }

void Head::add(Part part) {
  if (parts_.size() == parts_.capacity()) parts_.reserve(parts_.size() + parts_.size() / 4 + 2);
  parts_.push_back(std::move(part));
}

void Head::restore(Part part) {
  n_row_ += std::popcount(part.live);
  add(std::move(part));
}

// The last part, if a row at this position may join it, or a new one.
Head::Part& Head::with_room(int32_t position) {
  const auto fits = [&](const Part& last) {
    return last.n_used < last.block->capacity() && !last.block->settled() && last.block->reaches(position);
  };
  if (parts_.empty() || !fits(parts_.back())) {
    if (coding(storage_->precision).settles) settle_last();
    add({BlockPtr(*storage_, /*settled=*/false, kBlockRows), 0, 0});
  }
  Part& part = parts_.back();
  if (part.block.shared()) part.block = part.block.copy();
  return part;
}

void Head::append(int32_t position, const float* key, const float* value) {
  Part& part = with_room(position);
  const int row = part.n_used++;
  const attention::Rows keys = part.block->keys(row), values = part.block->values(row);
  part.block->set_position(row, position);
  encode(*storage_->kernels, keys.element, key, 1, storage_->d_key, const_cast<std::byte*>(keys.data), nullptr);
  encode(*storage_->kernels, values.element, value, 1, storage_->d_value, const_cast<std::byte*>(values.data), nullptr);
  part.live |= static_cast<uint16_t>(1u << row);
  ++n_row_;
}

// The last part's rows as the storage keeps them, but for those that stay exact.
void Head::settle_last() {
  if (parts_.empty() || parts_.back().block->settled()) return;
  const Part last = parts_.back();
  parts_.pop_back();
  const std::vector<int> rows = rows_of(last);
  const auto is_exact = [&](int row) { return storage_->is_exact(last.block->position(row)); };
  for (auto begin = rows.begin(), end = begin; begin != rows.end(); begin = end) {
    end = std::find_if(begin, rows.end(), [&](int row) { return is_exact(row) != is_exact(*begin); });
    const std::span<const int> same(begin, end);
    const int n = static_cast<int>(same.size());
    add({is_exact(*begin) ? last.block.with_rows(same, n) : settled(*storage_, last.block, same), all_of(n), static_cast<uint8_t>(n)});
  }
}

void Head::keep(const std::vector<bool>& kept) {
  const auto filter = [&](std::vector<float>& of_rows) {
    size_t n = 0;
    for (size_t i = 0; i < of_rows.size(); ++i)
      if (kept[i]) of_rows[n++] = of_rows[i];
    of_rows.resize(n);
  };
  for (Observation& seen : observations_) filter(seen.mass);
  filter(notes_);
  int row = 0;
  for (Part& part : parts_)
    for (unsigned left = part.live; left; left &= left - 1, ++row)
      if (!kept[row]) part.live &= static_cast<uint16_t>(~(left & -left)), --n_row_;
  std::erase_if(parts_, [&](const Part& part) { return part.live == 0 && (&part != &parts_.back() || part.n_used == part.block->capacity()); });
  int holes = 0;  // the last part's own are still to be filled
  for (size_t i = 0; i + 1 < parts_.size(); ++i) holes += parts_[i].block->capacity() - std::popcount(parts_[i].live);
  if (holes > std::max(n_row_ / 16, 2 * kBlockRows)) pack();
}

// Rows that have settled stay in their blocks, which shrink; the others move together.
void Head::pack() {
  for (const Part& from : std::exchange(parts_, {})) {
    if (from.block->settled()) {
      add(std::popcount(from.live) == from.block->capacity() ? from : shrunk(from));
      continue;
    }
    for (const int row : rows_of(from)) {
      const auto fits = [&](const Part& last) {
        return last.n_used < kBlockRows && !last.block->settled() && last.block->reaches(from.block->position(row));
      };
      if (parts_.empty() || !fits(parts_.back())) add({BlockPtr(*storage_, /*settled=*/false, kBlockRows), 0, 0});
      Part& to = parts_.back();
      copy_row(*from.block, row, *to.block, to.n_used);
      to.live = all_of(++to.n_used);
    }
  }
  for (size_t i = 0; i + 1 < parts_.size(); ++i)
    if (parts_[i].n_used < parts_[i].block->capacity()) parts_[i] = shrunk(parts_[i]);
}

void Head::leave_closed_slabs() {
  for (Part& part : parts_)
    if (!part.block.shared() && part.block.in_closed_slab()) part.block = part.block.copy();
}

void Head::over_runs(const std::function<void(int, int, const Block&, int)>& body) const {
  constexpr size_t kAhead = 8;  // blocks lie anywhere: their heads come from memory meanwhile
  int row = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (i + kAhead < parts_.size()) parts_[i + kAhead].block.prefetch();
    const Part& part = parts_[i];
    for (unsigned left = part.live; left;) {
      const int at = std::countr_zero(left), n = std::countr_one(left >> at);
      body(row, n, *part.block, at);
      row += n;
      left &= ~(((1u << n) - 1) << at);
    }
  }
}

size_t Head::bookkeeping() const {
  size_t n = parts_.capacity() * sizeof(Part) + observations_.capacity() * sizeof(Observation) + notes_.capacity() * sizeof(float);
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
  if (layer.heads.empty()) {
    if (coding(precision_).settles && (d_key % kCodedUnit != 0 || d_value % kCodedUnit != 0))
      throw InputError(fmt::format("keys of {} numbers and values of {} cannot be kept as {}, which takes {} at once; give --kv-type f16", d_key, d_value,
                                   coding(precision_).name, kCodedUnit));
    layer.storage = std::make_shared<const Storage>(Storage{kernels_, d_key, d_value, precision_, exact_, slabs_});
    layer.heads.assign(n_head_kv, Head(layer.storage));
  }
  if (layer.storage->d_key != d_key || layer.storage->d_value != d_value || static_cast<int>(layer.heads.size()) != n_head_kv)
    throw InternalError("a layer changed the size of its keys or values");
  return layer;
}

void Memory::start_batch() {
  if (!holds_base_ && n_past_ - base() >= kEpochTokens) epochs_.push_back({n_past_, n_past_});
}

void Memory::end_batch(int n_token) {
  n_past_ += n_token;
  if (slabs_->free_bytes() * kFreeShare <= slabs_->bytes()) return;
  slabs_->close_spare();
  for (Layer& layer : layers_)
    for (Head& head : layer.heads) head.leave_closed_slabs();
  slabs_->open_all();
}

int64_t Memory::base_of(int64_t position) const {
  return std::prev(std::upper_bound(epochs_.begin(), epochs_.end(), position, [](int64_t p, const Epoch& e) { return p < e.first; }))->base;
}

size_t Memory::bytes() const {
  size_t n = slabs_->bytes() + epochs_.capacity() * sizeof(Epoch) + layers_.capacity() * sizeof(Layer);
  for (const Layer& layer : layers_) {
    if (layer.queries) n += layer.queries->bytes();
    for (const Head& head : layer.heads) n += sizeof(Head) + head.bookkeeping();
  }
  return n;
}

}  // namespace sinkscope::cache
