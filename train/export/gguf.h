// Trained models as GGUF files: of the architecture of llama.cpp that computes the same.
#pragma once

#include <string>

#include "data/token_file.h"
#include "model/model.h"

namespace sinkscope::train {

// Empty: write_gguf() can. Else which part of the model none of the architectures has that it writes.
std::string why_not_gguf(const ModelConfig& config);

// F32. Attention that llama.cpp does not have, and our device has, stands in sinkscope.attention.* (docs/training.md): llama.cpp
// alone computes plain softmax then. Throws InputError where the file cannot be written, and where why_not_gguf() says so.
void write_gguf(LanguageModel& model, const TokenFile& data, bool adds_bos, int n_context, const std::string& path);

}  // namespace sinkscope::train
