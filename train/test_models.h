// Small models that the trainer's tests share.
#pragma once

#include <string>

#include "model/model.h"
#include "training/loss.h"

namespace sinkscope::train {

using torch::Tensor;

constexpr int64_t kVocab = 512, kContext = 24;

inline ModelConfig small(const std::string& attention) {
  ModelConfig c;
  c.attention = attention;
  c.n_layer = 2, c.d_model = 16, c.n_head = 4, c.n_head_kv = 2, c.d_head = 8, c.d_ff = 24;
  return c;
}

// Weights far from where training starts, so that everything takes part.
inline LanguageModel shaken(const ModelConfig& c, torch::Dtype type = torch::kFloat) {
  LanguageModel model(c, kVocab + c.diffusion, kContext, 3);
  const torch::NoGradGuard no_grad;
  for (const auto& p : model->named_parameters()) p.value().add_(torch::randn_like(p.value()) * (p.key().ends_with("norm.weight") ? 0.1 : 0.2));
  model->to(type);
  return model;
}

inline Tensor some_tokens(int64_t n_row = 2, int64_t n = kContext) {
  torch::manual_seed(5);
  return torch::randint(3, kVocab, {n_row, n + 1}, torch::kLong);
}

// What training minimises. The mask is the token behind the vocabulary.
inline Tensor objective(LanguageModel& model, const Tensor& tokens, int64_t seed = 0) {
  const ModelConfig& c = model->config;
  const Tensor loss = c.diffusion ? diffusion_loss(model, tokens, torch::tensor(kVocab), 0, seed) : next_token_loss(model(tokens.narrow(1, 0, kContext)), tokens, c.prefix);
  return c.n_expert > 0 ? loss + c.balance * model->balance() : loss;
}

}  // namespace sinkscope::train
