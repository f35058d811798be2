#include "cache/slabs.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <new>

namespace sinkscope::cache {
namespace {

constexpr size_t kAlignment = 32, kMostBytes = 64 << 10;  // of a slab
constexpr int kMostPieces = 64, kGrowth = 32;             // pieces of a size for each piece of a new slab

size_t piece_bytes(size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }
uint64_t all_of(int n_piece) { return ~uint64_t{0} >> (64 - n_piece); }

}  // namespace

void Slabs::Free::operator()(std::byte* p) const { operator delete(p, std::align_val_t{kAlignment}); }

int Slabs::Slab::n_free() const { return std::popcount(free); }

std::vector<Slabs::Slab>::iterator Slabs::at(Size& size, const std::byte* piece) {
  return std::prev(std::ranges::upper_bound(size.slabs, piece, std::less(), [](const Slab& s) -> const std::byte* { return s.memory.get(); }));
}

std::byte* Slabs::take(size_t n) {
  const std::lock_guard lock(mutex_);
  Size& size = sizes_[n];
  auto slab = size.n_free == 0 ? size.slabs.end() : std::ranges::find_if(size.slabs, [](const Slab& s) { return s.free != 0 && !s.closed; });
  if (slab == size.slabs.end()) {
    const int n_piece = std::clamp(std::min(size.n_taken / kGrowth, static_cast<int>(kMostBytes / piece_bytes(n))), 1, kMostPieces);
    std::unique_ptr<std::byte, Free> memory(static_cast<std::byte*>(operator new(n_piece * piece_bytes(n), std::align_val_t{kAlignment})));
    Slab added{.memory = std::move(memory), .free = all_of(n_piece), .n_piece = static_cast<uint8_t>(n_piece)};
    const auto behind = std::ranges::upper_bound(size.slabs, added.memory.get(), std::less(), [](const Slab& s) { return s.memory.get(); });
    slab = size.slabs.insert(behind, std::move(added));
    size.n_free += n_piece;
  }
  const int index = std::countr_zero(slab->free);
  slab->free &= slab->free - 1;
  --size.n_free, ++size.n_taken;
  return slab->memory.get() + index * piece_bytes(n);
}

void Slabs::give_back(std::byte* piece, size_t n) {
  const std::lock_guard lock(mutex_);
  Size& size = sizes_.at(n);
  const auto slab = at(size, piece);
  slab->free |= uint64_t{1} << (piece - slab->memory.get()) / piece_bytes(n);
  ++size.n_free, --size.n_taken;
  if (slab->n_taken() > 0) return;
  size.n_free -= slab->n_piece;
  size.slabs.erase(slab);
  if (size.slabs.empty()) sizes_.erase(n);
  else if (size.slabs.size() < size.slabs.capacity() / 2) size.slabs.shrink_to_fit();
}

size_t Slabs::bytes() const {
  const std::lock_guard lock(mutex_);
  size_t sum = 0;
  for (const auto& [n, size] : sizes_) sum += (size.n_taken + size.n_free) * piece_bytes(n) + size.slabs.capacity() * sizeof(Slab);
  return sum;
}

size_t Slabs::free_bytes() const {
  const std::lock_guard lock(mutex_);
  size_t sum = 0;
  for (const auto& [n, size] : sizes_) sum += size.n_free * piece_bytes(n);
  return sum;
}

void Slabs::close_spare() {
  const std::lock_guard lock(mutex_);
  for (auto& [n, size] : sizes_) {
    std::vector<Slab*> emptiest;
    for (Slab& slab : size.slabs) emptiest.push_back(&slab);
    std::ranges::stable_sort(emptiest, std::less(), &Slab::n_taken);
    int room = size.n_free;  // in open slabs
    for (Slab* slab : emptiest) {
      room -= slab->n_free() + slab->n_taken();
      if (room < 0) break;
      slab->closed = true;
    }
  }
}

bool Slabs::is_closed(const std::byte* piece, size_t n) const {
  const std::lock_guard lock(mutex_);
  return at(sizes_.at(n), piece)->closed;
}

void Slabs::open_all() {
  const std::lock_guard lock(mutex_);
  for (auto& [n, size] : sizes_)
    for (Slab& slab : size.slabs) slab.closed = false;
}

}  // namespace sinkscope::cache
