// llama.cpp's evaluation callback, as hooks see it.
#pragma once

#include <exception>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ggml.h>

#include "sinkscope/hooks.h"

namespace sinkscope::session {

class Tensors {
 public:
  std::vector<TensorHook*> hooks;   // change them only between batches
  std::exception_ptr failure;       // what a hook threw; no hook is asked after that

  void begin_batch() { n_seen_.clear(); }
  // For llama_context_params::cb_eval, with `this` as its data.
  static bool callback(ggml_tensor* tensor, bool ask, void* tensors);

 private:
  bool wanted(const ggml_tensor* tensor) const;
  void show(ggml_tensor* tensor);

  std::map<std::pair<std::string, int>, int> n_seen_;
};

}  // namespace sinkscope::session
