// Reading and changing what flows through a model beside its attention: tensors of llama.cpp's graph, by their names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sinkscope {

// A tensor when it has just been computed, F32 or I32: [n[3], n[2], n[1], n[0]], last contiguous, strides in bytes.
// "l_out" of layer 7 is the hidden state behind it, [n_token, n_embd].
struct TensorView {
  std::string_view name = {};
  int layer = -1;            // -1: of no layer
  int64_t n[4] = {1, 1, 1, 1};
  size_t stride[4] = {};     // stride[0] is 4
  std::byte* data = nullptr;
  bool integers = false;
  int nth = 0;               // so many tensors of this batch had this name and layer before

  float* row(int64_t i, int64_t j = 0) const { return reinterpret_cast<float*>(data + i * stride[1] + j * stride[2]); }
  const int32_t* integer_row(int64_t i) const { return reinterpret_cast<const int32_t*>(data + i * stride[1]); }
};

class TensorHook {
 public:
  virtual ~TensorHook() = default;
  // Asked for every tensor of every batch.
  virtual bool wants(std::string_view name, int layer) = 0;
  // What is written to the tensor is what the model goes on with.
  virtual void see(const TensorView& tensor) = 0;
};

}  // namespace sinkscope
