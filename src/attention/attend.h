// One attention operation, tile by tile, with probes. What a layer of the model spends its time in.
#pragma once

#include <new>
#include <span>
#include <vector>

#include <hwy/aligned_allocator.h>

#include "attention/call.h"
#include "attention/kernels.h"
#include "sinkscope/probe.h"

namespace sinkscope::attention {

// Memory that operations use again and again; it grows to the largest one seen.
class Workspace {
 public:
  // At least n floats, aligned for every instruction set; what was in them is lost when it has to grow.
  class Floats {
   public:
    float* get(size_t n) {
      if (n > size_) {
        data_.reset();
        size_ = 0;
        data_ = hwy::AllocateAligned<float>(n);
        if (!data_) throw std::bad_alloc();
        size_ = n;
      }
      return data_.get();
    }

   private:
    hwy::AlignedFreeUniquePtr<float[]> data_;
    size_t size_ = 0;
  };

  // Before of_thread is used with so many threads.
  void make_room_for(int n_thread) {
    if (static_cast<int>(of_thread.size()) < n_thread) of_thread.resize(n_thread);
  }

  Floats key_panels, value_panels;                   // of many queries
  Floats queries, weights, row_values, partial;      // of few queries
  std::vector<Floats> of_thread;
  std::vector<RowView> rows;
  std::vector<uint32_t> key_n_row;
};

// Few queries are computed faster key by key, with other rounding than tiles.
enum class Way { best, tiles };

// Computes call.out and shows every tile to the probes. The result has the same bits for any n_thread and any probes.
// How the work is cut depends on the shape and the mask alone.
void attend(const Call& call, std::span<Probe* const> probes, const Kernels& kernels, int n_thread, Workspace& work,
            Way way = Way::best);

}  // namespace sinkscope::attention
