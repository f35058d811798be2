#include "evaluation/evaluation.h"

#include <fmt/format.h>
#include <ggml.h>

#include "data/packing.h"
#include "sinkscope/error.h"
#include "training/loss.h"
#include "training/trainer.h"

namespace sinkscope::train {
namespace {

using torch::Tensor;

ggml_type type_named(const std::string& name) {
  for (int t = 0; t < GGML_TYPE_COUNT; ++t) {
    const auto type = static_cast<ggml_type>(t);
    const char* known = ggml_type_name(type);
    if (known && name == known && ggml_is_quantized(type) && ggml_get_type_traits(type)->to_float && !ggml_quantize_requires_imatrix(type)) return type;
  }
  throw UsageError(fmt::format("'{}' is no type that weights can be rounded to; use one of ggml's, as q8_0 or q4_0", name));
}

// Nats of each token's successor, by position: mean over contexts, [n].
Tensor loss_by_position(LanguageModel& model, const Tensor& contexts) {
  constexpr int64_t kBatch = 16;
  const torch::NoGradGuard no_grad;
  Tensor sum;
  for (int64_t at = 0; at < contexts.size(0); at += kBatch) {
    const Tensor tokens = contexts.narrow(0, at, std::min(kBatch, contexts.size(0) - at));
    const Tensor each = next_token_losses(model(tokens.narrow(1, 0, tokens.size(1) - 1)), tokens).sum(0);
    sum = sum.defined() ? sum + each : each;
  }
  return sum / static_cast<double>(contexts.size(0));
}

double mean_from(const Tensor& by_position, int64_t first) { return by_position.narrow(0, first, by_position.size(0) - first).mean().item<double>(); }

}  // namespace

void round_layers(LanguageModel& model, const std::string& name) {
  const torch::NoGradGuard no_grad;
  const ggml_type type = type_named(name);
  for (const Layer& layer : model->layers)
    for (const auto& p : layer->named_parameters()) {
      const Tensor& weight = p.value();
      if (weight.dim() != 2 || p.key().ends_with("_bias") || p.key().ends_with("router.weight")) continue;
      const int64_t n_row = weight.size(0), n = weight.size(1);
      if (n % ggml_blck_size(type) != 0)
        throw UsageError(fmt::format("rows of {} numbers cannot be rounded to {}, whose blocks are of {}; give another type", n, name, ggml_blck_size(type)));
      std::vector<uint8_t> coded(ggml_row_size(type, n) * n_row);
      ggml_quantize_chunk(type, weight.data_ptr<float>(), coded.data(), 0, n_row, n, nullptr);
      ggml_get_type_traits(type)->to_float(coded.data(), weight.data_ptr<float>(), n_row * n);
    }
}

Evaluation evaluate_run(const std::string& folder, const EvaluationOptions& o) {
  for (const std::string& type : o.types) type_named(type);
  LoadedRun run = load_run(folder);
  if (run.config.model.diffusion) throw UsageError(fmt::format("'{}' is a masked diffusion model, which has no next token; give a run without model.diffusion", folder));
  const int64_t n = run.config.data.context;
  if (o.window < 1 || o.window >= n) throw UsageError(fmt::format("--window {} is not from 1 to {}, the contexts that '{}' was trained on; give another", o.window, n - 1, folder));
  for (const int length : o.lengths)
    if (length < 32 || length > n) throw UsageError(fmt::format("--length {} is not from 32 to {}, the contexts that '{}' was trained on; give another", length, n, folder));
  Tensor contexts = torch::empty({o.contexts, n + 1}, torch::kLong);
  Packing(*run.data, run.config.data.packing, 0).validation(0, o.contexts, static_cast<int>(n), {contexts.data_ptr<int64_t>(), static_cast<size_t>(contexts.numel())});

  const int64_t first_loss = std::max(run.config.model.prefix - 1, 0), behind = std::max<int64_t>(o.window, first_loss);  // positions in a prefix see their own target
  const Tensor whole = loss_by_position(run.model, contexts);
  Evaluation result{.loss = mean_from(whole, first_loss), .rounded = {}, .loss_behind = mean_from(whole, behind), .streaming = {}, .sinks = {}};
  for (const int length : o.lengths) result.sinks.push_back(measure(run.model, contexts.narrow(1, 0, length + 1), {}));
  for (const int first : o.first) {
    run.model->remains = {.last = o.window, .first = first};
    result.streaming.push_back(mean_from(loss_by_position(run.model, contexts), behind));
  }
  for (const std::string& type : o.types) {
    LoadedRun rounded = load_run(folder);
    round_layers(rounded.model, type);
    result.rounded.push_back(mean_from(loss_by_position(rounded.model, contexts), first_loss));
  }
  return result;
}

}  // namespace sinkscope::train
