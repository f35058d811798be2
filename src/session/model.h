// A Model as the session folder sees it: llama.cpp's handles.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <llama.h>

#include "sinkscope/session.h"

namespace sinkscope {

struct Model::Impl {
  ModelInfo info;
  std::unique_ptr<llama_model, decltype(&llama_model_free)> llama{nullptr, &llama_model_free};
  const llama_vocab* vocab = nullptr;

  // GGUF metadata as text; empty when the file has no such key.
  std::string meta(const std::string& key) const;
};

}  // namespace sinkscope
