// Where blocks lie: pieces of one size side by side in slabs, with nothing between them. A piece that is given back is the
// next one of its size, and a slab without pieces goes back to the system. A new slab adds a thirty-second of the pieces
// that there are, so that a small memory has small slabs. What others leave half empty can be moved together: close_spare(),
// move what is closed, open_all().
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace sinkscope::cache {

class Slabs {
 public:
  // Of n bytes, aligned to 32, so that rows of F16 in vectors of 32 do not cross lines.
  std::byte* take(size_t n);
  void give_back(std::byte* piece, size_t n);

  // All slabs, their free pieces too, and what is noted of them.
  size_t bytes() const;
  size_t free_bytes() const;

  // The emptiest slabs give no more pieces, as many as the others have room for.
  void close_spare();
  bool is_closed(const std::byte* piece, size_t n) const;
  void open_all();

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  struct Slab {
    std::unique_ptr<std::byte, Free> memory;
    uint64_t free;  // bit i: piece i
    uint8_t n_piece;
    bool closed = false;

    int n_free() const;
    int n_taken() const { return n_piece - n_free(); }
  };
  struct Size {
    std::vector<Slab> slabs = {};  // in order of their places
    int n_taken = 0, n_free = 0;   // pieces
  };
  // The slab that a piece is in.
  static std::vector<Slab>::iterator at(Size& size, const std::byte* piece);

  mutable std::mutex mutex_;
  mutable std::map<size_t, Size> sizes_;  // by bytes of a piece
};

}  // namespace sinkscope::cache
