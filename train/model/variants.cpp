#include "model/variants.h"

#include <algorithm>
#include <limits>

#include <torch/torch.h>

#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

using torch::Tensor;

constexpr double kTiny = 1e-9;               // keeps sums from being 0

Tensor hidden_logits(const Tensor& logits, const Tensor& visible) { return logits.masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity()); }
Tensor only_visible(const Tensor& weights, const Tensor& visible) { return weights.masked_fill(visible.logical_not(), 0); }

Tensor softmax(const Tensor& logits, const Tensor& visible, const Learned&) { return torch::softmax(hidden_logits(logits, visible), -1); }

// One more column, that takes part in the sum and is dropped.
Tensor softmax_with(const Tensor& column, const Tensor& logits, const Tensor& visible) {
  const Tensor all = torch::cat({hidden_logits(logits, visible), column.expand({logits.size(0), logits.size(1), logits.size(2), 1})}, -1);
  return torch::softmax(all, -1).narrow(-1, 0, logits.size(3));
}
Tensor softmax1(const Tensor& logits, const Tensor& visible, const Learned&) { return softmax_with(logits.new_zeros({1, 1, 1, 1}), logits, visible); }
Tensor sink_logit(const Tensor& logits, const Tensor& visible, const Learned& learned) { return softmax_with(learned.sink_logit.view({1, -1, 1, 1}), logits, visible); }

Tensor sigmoid(const Tensor& logits, const Tensor& visible, const Learned&) { return only_visible(torch::sigmoid(logits), visible); }
Tensor sigmoid_norm(const Tensor& logits, const Tensor& visible, const Learned&) {  // sigmoid(x) / sum, without a small sum's rounding
  return torch::softmax(hidden_logits(torch::log_sigmoid(logits), visible), -1);
}
Tensor elu(const Tensor& logits, const Tensor& visible, const Learned&) { return only_visible(torch::elu(logits) + 1, visible); }
Tensor relu(const Tensor& logits, const Tensor& visible, const Learned&) { return only_visible(torch::relu(logits), visible); }

// relu(e^x - 1) / sum |e^x - 1|, both divided by e^max so that nothing overflows.
Tensor softpick(const Tensor& logits, const Tensor& visible, const Learned&) {
  const Tensor most = hidden_logits(logits, visible).amax(-1, true).clamp_min(0).detach();
  const Tensor difference = only_visible(torch::exp(logits - most) - torch::exp(-most), visible);
  return torch::relu(difference) / (difference.abs().sum(-1, true) + kTiny);
}

Tensor clipped(const Tensor& logits, const Tensor& visible, const Learned& learned) {
  return only_visible(((learned.clip_zeta - learned.clip_gamma) * softmax(logits, visible, learned) + learned.clip_gamma).clamp(0, 1), visible);
}

constexpr const char* kGu = "Gu et al., 2410.10781";
constexpr const char* kQiu = "Qiu et al., 2505.06708";
constexpr Variant kVariants[] = {
    {.name = "softmax", .weigh = softmax, .gguf = "", .formula = "softmax(q k / sqrt d)", .source = ""},
    {.name = "softmax1", .weigh = softmax1, .gguf = "off-by-one", .formula = "e^x / (1 + sum e^x)", .source = "Xiao et al., 2309.17453"},
    {.name = "sink_logit", .weigh = sink_logit, .sink_logit = true, .gguf = "sink-logits", .formula = "a learned logit of each head joins the softmax and is dropped", .source = "gpt-oss"},
    {.name = "kv_bias", .weigh = softmax, .key_bias = true, .value_bias = true, .gguf = "kv-bias", .formula = "a learned key and value before the sequence", .source = "Sun et al., 2402.17762"},
    {.name = "k_bias", .weigh = softmax, .key_bias = true, .gguf = "kv-bias", .formula = "a learned key before the sequence, its value is 0", .source = kGu},
    {.name = "v_bias", .weigh = softmax, .value_bias = true, .gguf = "kv-bias", .formula = "a learned value before the sequence, its key is 0", .source = kGu},
    {.name = "sink_token", .weigh = softmax, .sink_token = true, .formula = "a learned embedding before the sequence", .source = "Xiao et al., 2309.17453"},
    {.name = "sigmoid", .weigh = sigmoid, .gguf = "sigmoid", .formula = "sigmoid(x)", .source = kGu},
    {.name = "sigmoid_norm", .weigh = sigmoid_norm, .formula = "sigmoid(x) / sum", .source = kGu},
    {.name = "elu", .weigh = elu, .formula = "elu(x) + 1", .source = kGu},
    {.name = "relu", .weigh = relu, .formula = "max(x, 0)", .source = "Guo et al., 2410.13835"},
    {.name = "softpick", .weigh = softpick, .formula = "relu(e^x - 1) / sum |e^x - 1|", .source = "Zuhri et al., 2504.20966"},
    {.name = "clipped", .weigh = clipped, .formula = "clip((zeta - gamma) softmax + gamma, 0, 1)", .source = "Bondarenko et al., 2306.12929"},
    {.name = "gate_head", .weigh = softmax, .gate_head = true, .formula = "softmax; each head's output times sigmoid(x W + b)", .source = kQiu},
    {.name = "gate_elem", .weigh = softmax, .gate_elem = true, .formula = "softmax; each number of the output times sigmoid(x W + b)", .source = kQiu},
};

}  // namespace

std::span<const Variant> variants() { return kVariants; }

const Variant& variant(const std::string& name) {
  const auto at = std::ranges::find_if(kVariants, [&](const Variant& v) { return name == v.name; });
  if (at == std::end(kVariants)) throw InternalError("no attention variant is called " + name);
  return *at;
}

}  // namespace sinkscope::train
