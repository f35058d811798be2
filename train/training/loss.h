// What is learned: the next token, or masked ones.
#pragma once

#include "model/model.h"

namespace sinkscope::train {

// logits [n_batch, n, n_vocab] against tokens [n_batch, n + 1]: mean over positions, nats. The first `prefix` positions see what
// they would predict: they do not count.
torch::Tensor next_token_loss(const torch::Tensor& logits, const torch::Tensor& tokens, int prefix);

// The same for each token: [n_batch, n].
torch::Tensor next_token_losses(const torch::Tensor& logits, const torch::Tensor& tokens);

// LLaDA's objective (2502.09992): each token of a row is masked with probability t; loss / t on masked tokens, mean over all.
// `ratio` 0: t is uniform in (0, 1] for each row. Masks are drawn from `seed` alone.
torch::Tensor diffusion_loss(LanguageModel& model, const torch::Tensor& tokens, const torch::Tensor& mask_token, double ratio, int64_t seed);

}  // namespace sinkscope::train
