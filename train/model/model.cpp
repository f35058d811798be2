#include "model/model.h"

#include <cmath>

namespace sinkscope::train {

using torch::Tensor;

namespace {

constexpr double kInit = 0.02;  // standard deviation of weights (GPT-2); of what is added to the residual stream, over sqrt(2 layers)

torch::nn::Linear linear(int64_t n_in, int64_t n_out, bool bias = false) { return torch::nn::Linear(torch::nn::LinearOptions(n_in, n_out).bias(bias)); }

// What bfloat16 would round too much.
Tensor not_reduced(const Tensor& x) { return x.scalar_type() == torch::kBFloat16 ? x.to(torch::kFloat) : x; }

// Pairs (i, i + d/2) turn, as NeoX and llama.cpp's `llama` files after their permutation have it.
Tensor rotated(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return torch::cat({halves[0] * cos - halves[1] * sin, halves[0] * sin + halves[1] * cos}, -1);
}

// Slopes 2^(-8 h / n) of heads 1 ... n (Press et al., 2108.12409).
Tensor alibi(int64_t n_head, int64_t n) {
  const Tensor slopes = torch::pow(2.0, -8.0 * torch::arange(1, n_head + 1) / static_cast<double>(n_head)).to(torch::kFloat);
  const Tensor at = torch::arange(n, torch::kFloat);
  return -slopes.view({-1, 1, 1}) * (at.view({-1, 1}) - at.view({1, -1})).abs();
}

}  // namespace

RmsNormImpl::RmsNormImpl(int64_t n) { weight = register_parameter("weight", torch::ones({n})); }

AttentionImpl::AttentionImpl(const ModelConfig& c) : config_(c), variant_(variant(c.attention)) {
  query = register_module("query", linear(c.d_model, int64_t{c.n_head} * c.d_head));
  key = register_module("key", linear(c.d_model, int64_t{c.n_head_kv} * c.d_head));
  value = register_module("value", linear(c.d_model, int64_t{c.n_head_kv} * c.d_head));
  output = register_module("output", linear(int64_t{c.n_head} * c.d_head, c.d_model));
  if (c.qk_norm != "none") {
    query_norm = register_module("query_norm", RmsNorm(c.d_head));
    key_norm = register_module("key_norm", RmsNorm(c.d_head));
  }
  learned.clip_gamma = c.clip_gamma, learned.clip_zeta = c.clip_zeta;
  if (variant_.sink_logit) learned.sink_logit = register_parameter("sink_logit", torch::zeros({c.n_head}));
  if (variant_.key_bias) key_bias = register_parameter("key_bias", torch::zeros({c.n_head_kv, c.d_head}));
  if (variant_.value_bias) value_bias = register_parameter("value_bias", torch::zeros({c.n_head_kv, c.d_head}));
  if (variant_.gate_head || variant_.gate_elem) gate = register_module("gate", linear(c.d_model, int64_t{c.n_head} * (variant_.gate_elem ? c.d_head : 1), true));
}

Tensor AttentionImpl::forward(const Tensor& x, const Tensor& visible, const Tensor& cos, const Tensor& sin, const Tensor& bias, Trace* trace) {
  const int64_t n_batch = x.size(0), n = x.size(1), d = config_.d_head, group = config_.n_head / config_.n_head_kv;
  const auto heads = [&](const Tensor& all) { return all.view({n_batch, n, -1, d}).transpose(1, 2); };
  Tensor q = heads(query(x)), k = heads(key(x)), v = heads(value(x));
  if (config_.qk_norm == "before") q = query_norm(q), k = key_norm(k);
  if (cos.defined()) q = rotated(q, cos, sin), k = rotated(k, cos, sin);
  if (config_.qk_norm == "behind") q = query_norm(q), k = key_norm(k);
  if (trace) trace->values.push_back(v.detach());
  // A key and a value before the sequence: one more column, seen by all. It has no position.
  const bool has_bias = key_bias.defined() || value_bias.defined();
  Tensor seen = visible, distance = bias;
  if (has_bias) {
    const auto first = [&](const Tensor& learned_row) {
      const Tensor row = learned_row.defined() ? learned_row : torch::zeros({config_.n_head_kv, d}, x.options());
      return row.view({1, -1, 1, d}).expand({n_batch, -1, 1, d});
    };
    k = torch::cat({first(key_bias), k}, 2);
    v = torch::cat({first(value_bias), v}, 2);
    seen = torch::cat({torch::ones({n, 1}, torch::kBool), visible}, 1);
    if (bias.defined()) distance = torch::cat({torch::zeros({config_.n_head, n, 1}, bias.options()), bias}, 2);
  }
  if (group > 1) k = k.repeat_interleave(group, 1), v = v.repeat_interleave(group, 1);
  Tensor logits = torch::matmul(q / std::sqrt(static_cast<double>(d)), k.transpose(2, 3));
  if (distance.defined()) logits = logits + distance;
  const Tensor weights = variant_.weigh(not_reduced(logits), seen, learned);
  if (trace) trace->weights.push_back(has_bias ? weights.detach().narrow(3, 1, n) : weights.detach());
  Tensor out = torch::matmul(weights.to(v.dtype()), v).transpose(1, 2);  // [n_batch, n, n_head, d]
  if (gate) {
    const Tensor open = torch::sigmoid(gate(x)).view({n_batch, n, config_.n_head, -1});
    out = out * open;
    if (trace) trace->gates.push_back(open.detach().mean(-1).transpose(1, 2));
  }
  out = out.reshape({n_batch, n, -1});
  if (trace) trace->added.push_back(out.detach());
  return output(out);
}

MlpImpl::MlpImpl(const ModelConfig& c) {
  if (c.activation == "swiglu") gate = register_module("gate", linear(c.d_model, c.d_ff));
  up = register_module("up", linear(c.d_model, c.d_ff));
  down = register_module("down", linear(c.d_ff, c.d_model));
}

Tensor MlpImpl::forward(const Tensor& x) { return down(gate ? torch::silu(gate(x)) * up(x) : torch::gelu(up(x))); }

ExpertsImpl::ExpertsImpl(const ModelConfig& c) : n_used_(c.n_expert_used) {
  router = register_module("router", linear(c.d_model, c.n_expert));
  for (int e = 0; e < c.n_expert; ++e) experts.push_back(register_module("expert" + std::to_string(e), Mlp(c)));
  for (int e = 0; e < c.n_expert_shared; ++e) shared.push_back(register_module("shared" + std::to_string(e), Mlp(c)));
}

Tensor ExpertsImpl::forward(const Tensor& x) {
  const Tensor tokens = x.reshape({-1, x.size(-1)}), probability = torch::softmax(not_reduced(router(tokens)), -1);
  auto [weight, chosen] = probability.topk(n_used_, -1);
  weight = weight / weight.sum(-1, true);
  const int64_t n_expert = probability.size(1);
  // Switch's loss: experts x sum over them of (share of tokens) x (mean probability); 1 when both are even.
  const Tensor share = torch::zeros({n_expert}, probability.options()).scatter_add_(0, chosen.flatten(), torch::ones(chosen.numel(), probability.options())) / static_cast<double>(chosen.numel());
  balance = static_cast<double>(n_expert) * (share * probability.mean(0)).sum();
  Tensor out = torch::zeros_like(tokens);
  for (int64_t e = 0; e < n_expert; ++e) {
    const auto at = torch::where(chosen == e);
    if (at[0].numel() == 0) continue;
    out = out.index_add(0, at[0], (experts[e](tokens.index_select(0, at[0])) * weight.index({at[0], at[1]}).unsqueeze(-1)).to(out.dtype()));
  }
  for (Mlp& one : shared) out = out + one(tokens);
  return out.view_as(x);
}

LayerImpl::LayerImpl(const ModelConfig& c) : pre_(c.norm != "post"), post_(c.norm != "pre") {
  if (pre_) {
    attention_norm = register_module("attention_norm", RmsNorm(c.d_model));
    mlp_norm = register_module("mlp_norm", RmsNorm(c.d_model));
  }
  if (post_) {
    attention_post = register_module("attention_post", RmsNorm(c.d_model));
    mlp_post = register_module("mlp_post", RmsNorm(c.d_model));
  }
  attention = register_module("attention", Attention(c));
  if (c.n_expert > 0) experts = register_module("experts", Experts(c));
  else mlp = register_module("mlp", Mlp(c));
}

// pre: x + f(norm x); post: norm(x + f x); sandwich: x + norm(f(norm x)).
Tensor LayerImpl::forward(Tensor x, const Tensor& visible, const Tensor& cos, const Tensor& sin, const Tensor& bias, Trace* trace) {
  const auto block = [&](RmsNorm& before, RmsNorm& behind, const auto& f) {
    const Tensor added = f(pre_ ? before(x) : x);
    if (!post_) return x + added;
    return pre_ ? x + behind(added) : behind(x + added);
  };
  x = block(attention_norm, attention_post, [&](const Tensor& in) { return attention(in, visible, cos, sin, bias, trace); });
  return block(mlp_norm, mlp_post, [&](const Tensor& in) { return experts ? experts(in) : mlp(in); });
}

LanguageModelImpl::LanguageModelImpl(const ModelConfig& c, int64_t n_vocab, int64_t n_context, uint32_t seed) : config(c) {
  torch::manual_seed(seed);
  embedding = register_module("embedding", torch::nn::Embedding(n_vocab, c.d_model));
  if (c.position == "learned") positions = register_module("positions", torch::nn::Embedding(n_context + 1, c.d_model));
  if (variant(c.attention).sink_token) sink_embedding = register_parameter("sink_embedding", torch::randn({c.d_model}) * kInit);
  for (int l = 0; l < c.n_layer; ++l) layers.push_back(register_module("layer" + std::to_string(l), Layer(c)));
  norm = register_module("norm", RmsNorm(c.d_model));
  if (!c.tied) output = register_module("output", linear(c.d_model, n_vocab));
  const torch::NoGradGuard no_grad;
  for (const auto& p : named_parameters()) {
    const bool adds = p.key().ends_with("attention.output.weight") || p.key().ends_with("down.weight");
    if (p.value().dim() >= 2 && !p.key().ends_with("_bias")) p.value().normal_(0, adds ? kInit / std::sqrt(2.0 * c.n_layer) : kInit);
    else if (p.key().ends_with(".bias")) p.value().zero_();
  }
}

Tensor LanguageModelImpl::visible(int64_t n_token) const {
  const int64_t n_before = sink_embedding.defined() ? 1 : 0, n = n_before + n_token;
  if (config.diffusion) return torch::ones({n, n}, torch::kBool);
  const Tensor at = torch::arange(n), distance = at.view({-1, 1}) - at.view({1, -1});
  Tensor seen = distance >= 0;
  if (config.window > 0) seen = seen.logical_and(distance < config.window);
  if (config.prefix > 0) {
    const Tensor in_prefix = at < n_before + config.prefix;
    seen = seen.logical_or(in_prefix.view({-1, 1}).logical_and(in_prefix));
  }
  if (remains.last > 0) seen = seen.logical_and((distance < remains.last).logical_or(at.view({1, -1}) < remains.first));
  return seen;
}

Tensor LanguageModelImpl::forward(const Tensor& tokens, Trace* trace) {
  Tensor x = embedding(tokens);
  if (sink_embedding.defined()) x = torch::cat({sink_embedding.expand({x.size(0), 1, -1}), x}, 1);
  const int64_t n = x.size(1);
  if (positions) x = x + positions(torch::arange(n));
  Tensor cos, sin, bias;
  if (config.position == "rope") {
    const Tensor frequency = torch::pow(config.rope_base, -torch::arange(0, config.d_head, 2, torch::kDouble) / static_cast<double>(config.d_head));
    const Tensor angle = torch::arange(n, torch::kDouble).view({-1, 1}) * frequency.view({1, -1});
    cos = angle.cos().to(x.dtype()), sin = angle.sin().to(x.dtype());
  } else if (config.position == "alibi") {
    bias = alibi(config.n_head, n).to(x.dtype());
  }
  const Tensor seen = visible(tokens.size(1));
  const auto keep = [&] {
    if (trace) trace->hidden.push_back(sink_embedding.defined() ? x.detach().narrow(1, 1, n - 1) : x.detach());
  };
  keep();
  for (Layer& layer : layers) {
    x = layer(x, seen, cos, sin, bias, trace);
    keep();
  }
  if (sink_embedding.defined()) {
    x = x.narrow(1, 1, n - 1);
    if (trace) {
      for (Tensor& weights : trace->weights) weights = weights.narrow(2, 1, n - 1).narrow(3, 1, n - 1);
      for (Tensor& values : trace->values) values = values.narrow(2, 1, n - 1);
      for (Tensor& added : trace->added) added = added.narrow(1, 1, n - 1);
    }
  }
  x = norm(x);
  return output ? output(x) : torch::matmul(x, embedding->weight.t());
}

Tensor LanguageModelImpl::balance() const {
  if (config.n_expert == 0) return {};
  Tensor sum = torch::zeros({}, embedding->weight.options());
  for (const Layer& layer : layers) sum = sum + layer->experts->balance;
  return sum / static_cast<double>(layers.size());
}

namespace {

int64_t size_of(const torch::nn::Module& module) {
  int64_t n = 0;
  for (const Tensor& p : module.parameters()) n += p.numel();
  return n;
}

}  // namespace

int64_t LanguageModelImpl::n_parameter() const { return size_of(*this); }

int64_t LanguageModelImpl::n_active_parameter() const {
  int64_t n = n_parameter();
  if (output) n -= embedding->weight.numel();
  if (positions) n -= positions->weight.numel();
  if (config.n_expert > 0) n -= int64_t{config.n_layer} * (config.n_expert - config.n_expert_used) * size_of(*layers[0]->experts->experts[0]);
  return n;
}

}  // namespace sinkscope::train
