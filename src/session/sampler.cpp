#include "session/sampler.h"

#include <llama.h>

#include "sinkscope/error.h"

namespace sinkscope::session {

Sampler::Sampler(const Sampling& s) : sampling_(s), narrow_(llama_sampler_chain_init(llama_sampler_chain_default_params())) {
  if (s.top_p < 1) llama_sampler_chain_add(narrow_, llama_sampler_init_top_p(s.top_p, 1));
  if (s.min_p > 0) llama_sampler_chain_add(narrow_, llama_sampler_init_min_p(s.min_p, 1));
  if (s.temperature > 0) llama_sampler_chain_add(narrow_, llama_sampler_init_temp(s.temperature));
}

Sampler::~Sampler() { llama_sampler_free(narrow_); }

int Sampler::pick(std::span<const float> logits, int64_t position) {
  std::vector<llama_token_data> candidates(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) candidates[i] = {static_cast<llama_token>(i), logits[i], 0};
  llama_token_data_array array{candidates.data(), candidates.size(), -1, false};
  llama_sampler_apply(narrow_, &array);
  const uint32_t chance = sampling_.seed + static_cast<uint32_t>(position) * 2654435761u;  // Knuth's multiplicative hash
  const std::unique_ptr<llama_sampler, void (*)(llama_sampler*)> last(
      sampling_.temperature > 0 ? llama_sampler_init_dist(chance) : llama_sampler_init_greedy(), &llama_sampler_free);
  llama_sampler_apply(last.get(), &array);
  if (array.selected < 0) throw InternalError("llama.cpp's samplers chose no token");
  return array.data[array.selected].id;
}

}  // namespace sinkscope::session
