#include "training/loss.h"

#include <ATen/CPUGeneratorImpl.h>

namespace sinkscope::train {

using torch::Tensor;

namespace {

constexpr double kLeastRatio = 1e-3;

Tensor cross_entropy(const Tensor& logits, const Tensor& targets, bool each = false) {
  namespace F = torch::nn::functional;
  const Tensor wide = logits.scalar_type() == torch::kBFloat16 ? logits.to(torch::kFloat) : logits;
  const F::CrossEntropyFuncOptions options = each ? F::CrossEntropyFuncOptions().reduction(torch::kNone) : F::CrossEntropyFuncOptions();
  return F::cross_entropy(wide.reshape({-1, logits.size(-1)}), targets.reshape({-1}), options);
}

}  // namespace

Tensor next_token_losses(const Tensor& logits, const Tensor& tokens) {
  return cross_entropy(logits, tokens.narrow(1, 1, logits.size(1)), /*each=*/true).view({logits.size(0), -1});
}

Tensor next_token_loss(const Tensor& logits, const Tensor& tokens, int prefix) {
  const int64_t first = std::max(prefix - 1, 0), n = logits.size(1) - first;
  return cross_entropy(logits.narrow(1, first, n), tokens.narrow(1, first + 1, n));
}

Tensor diffusion_loss(LanguageModel& model, const Tensor& tokens, const Tensor& mask_token, double ratio, int64_t seed) {
  const Tensor text = tokens.narrow(1, 0, tokens.size(1) - 1);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  const Tensor t = ratio > 0 ? torch::full({text.size(0), 1}, ratio) : torch::rand({text.size(0), 1}, generator).clamp_min(kLeastRatio);
  const Tensor masked = torch::rand(text.sizes(), generator) < t;
  const Tensor logits = model(torch::where(masked, mask_token, text));
  const Tensor each = cross_entropy(logits, text, /*each=*/true).view_as(text);
  return (each * masked / t).mean();
}

}  // namespace sinkscope::train
