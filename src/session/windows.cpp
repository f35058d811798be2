#include "session/windows.h"

#include <fmt/format.h>
#include <llama-model.h>

#include "session/model.h"
#include "sinkscope/error.h"

namespace sinkscope {

std::vector<int> windows(const Model::Impl& model) {
  const llama_hparams& h = model.llama->hparams;
  std::vector<int> windows(h.n_layer_all, 0);
  if (h.swa_type == LLAMA_SWA_TYPE_NONE) return windows;
  if (h.swa_type != LLAMA_SWA_TYPE_STANDARD)
    throw InputError(fmt::format("'{}' has sliding windows of a kind that owned memory does not know; use it without a policy", model.info.file));
  for (size_t layer = 0; layer < windows.size(); ++layer)
    if (h.is_swa_impl[layer]) windows[layer] = static_cast<int>(h.n_swa);
  return windows;
}

bool has_learned_positions(const Model::Impl& model) {
  return llama_model_rope_type(model.llama.get()) == LLAMA_ROPE_TYPE_NONE && !model.llama->hparams.use_alibi;
}

}  // namespace sinkscope
