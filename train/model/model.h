// Small transformer language models, made of libtorch's modules. Everything a run's [model] can ask for.
#pragma once

#include <vector>

#include <torch/torch.h>

#include "config/run_config.h"
#include "model/variants.h"

namespace sinkscope::train {

// What telemetry looks at, by layer: [n_batch, ...]. Kept while a forward pass is given one.
struct Trace {
  std::vector<torch::Tensor> weights;  // [n_batch, n_head, n_query, n_key]; of kv_bias and sink_token without their own column
  std::vector<torch::Tensor> gates;    // [n_batch, n_head, n_query], mean over a head's numbers; empty without gates
  std::vector<torch::Tensor> values;   // [n_batch, n_head_kv, n_key, d_head]; of sink_token without its own
  std::vector<torch::Tensor> added;    // [n_batch, n_query, n_head * d_head], behind gates, before the output's projection; of sink_token without its row
  std::vector<torch::Tensor> hidden;   // [n_batch, n_query, d_model], before the first layer, then behind each
};

class RmsNormImpl : public torch::nn::Module {
 public:
  explicit RmsNormImpl(int64_t n);
  torch::Tensor forward(const torch::Tensor& x) { return x * torch::rsqrt(x.square().mean(-1, true) + kEpsilon) * weight; }
  static constexpr double kEpsilon = 1e-5;
  torch::Tensor weight;
};
TORCH_MODULE(RmsNorm);

class AttentionImpl : public torch::nn::Module {
 public:
  explicit AttentionImpl(const ModelConfig& config);
  // x: normalised [n_batch, n, d_model]; cos, sin: [n, d_head / 2] of RoPE or undefined; slopes: ALiBi's bias [n_head, n, n] or undefined.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& visible, const torch::Tensor& cos, const torch::Tensor& sin, const torch::Tensor& bias, Trace* trace);

  torch::nn::Linear query{nullptr}, key{nullptr}, value{nullptr}, output{nullptr}, gate{nullptr};
  RmsNorm query_norm{nullptr}, key_norm{nullptr};
  Learned learned;
  torch::Tensor key_bias, value_bias;  // [n_head_kv, d_head]

 private:
  ModelConfig config_;
  const Variant& variant_;
};
TORCH_MODULE(Attention);

class MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const ModelConfig& config);
  torch::Tensor forward(const torch::Tensor& x);
  torch::nn::Linear gate{nullptr}, up{nullptr}, down{nullptr};
};
TORCH_MODULE(Mlp);

// Softmax over all experts, the best of them with their weights made to sum to 1, as Qwen 3 and Hunyuan have it.
class ExpertsImpl : public torch::nn::Module {
 public:
  explicit ExpertsImpl(const ModelConfig& config);
  torch::Tensor forward(const torch::Tensor& x);
  torch::nn::Linear router{nullptr};
  std::vector<Mlp> experts, shared;
  torch::Tensor balance;  // the last forward's balance loss

 private:
  int n_used_;
};
TORCH_MODULE(Experts);

class LayerImpl : public torch::nn::Module {
 public:
  explicit LayerImpl(const ModelConfig& config);
  torch::Tensor forward(torch::Tensor x, const torch::Tensor& visible, const torch::Tensor& cos, const torch::Tensor& sin, const torch::Tensor& bias, Trace* trace);
  RmsNorm attention_norm{nullptr}, mlp_norm{nullptr}, attention_post{nullptr}, mlp_post{nullptr};
  Attention attention{nullptr};
  Mlp mlp{nullptr};
  Experts experts{nullptr};

 private:
  bool pre_, post_;
};
TORCH_MODULE(Layer);

class LanguageModelImpl : public torch::nn::Module {
 public:
  // `n_context`: the longest input, of learned positions. Weights are drawn from `seed`.
  LanguageModelImpl(const ModelConfig& config, int64_t n_vocab, int64_t n_context, uint32_t seed);
  // tokens [n_batch, n] -> logits [n_batch, n, n_vocab].
  torch::Tensor forward(const torch::Tensor& tokens, Trace* trace = nullptr);
  // Mean over layers of the routers' balance losses of the last forward; undefined without experts.
  torch::Tensor balance() const;
  int64_t n_parameter() const;
  int64_t n_active_parameter() const;  // of a token's products: without idle experts and what is looked up alone

  const ModelConfig config;
  torch::nn::Embedding embedding{nullptr}, positions{nullptr};
  torch::Tensor sink_embedding;  // [d_model]
  std::vector<Layer> layers;
  RmsNorm norm{nullptr};
  torch::nn::Linear output{nullptr};
  // Keys that a query still sees, besides what the model was trained to see: the last ones, and the first ones. last = 0: all.
  struct Remains {
    int last = 0, first = 0;
  } remains;
  // [n, n]: which keys a query may see; n = n_token, and one more where a sink token comes first.
  torch::Tensor visible(int64_t n_token) const;
};
TORCH_MODULE(LanguageModel);

}  // namespace sinkscope::train
