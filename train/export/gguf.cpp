#include "export/gguf.h"

#include <cstdio>
#include <map>
#include <memory>

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>
#include <nlohmann/json.hpp>

#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

using torch::Tensor;

// What is written of what llama.cpp has, by what distinguishes it.
struct Architecture {
  const char* name;
  bool experts, shared, diffusion;
  const char* qk_norm;
  bool turns_neighbours;  // RoPE turns pairs (2i, 2i+1), not (i, i + d/2)
};
constexpr Architecture kArchitectures[] = {
    {"llama", false, false, false, "none", true},    {"llama", true, false, false, "none", true},           {"qwen3", false, false, false, "before", false},
    {"qwen3moe", true, false, false, "before", false}, {"hunyuan-moe", true, true, false, "behind", false}, {"llada", false, false, true, "none", true},
};

const Architecture* architecture_of(const ModelConfig& c) {
  for (const Architecture& a : kArchitectures)
    if (a.experts == (c.n_expert > 0) && a.shared == (c.n_expert > 0 && c.n_expert_shared > 0) && a.diffusion == c.diffusion && c.qk_norm == a.qk_norm) return &a;
  return nullptr;
}

// A file in the making: tensors are copied.
class File {
 public:
  File(const std::string& architecture, size_t n_byte, size_t n_tensor)
      : prefix_(architecture + "."), gguf_(gguf_init_empty(), &gguf_free),
        tensors_(ggml_init({.mem_size = n_byte + (n_tensor + 1) * (ggml_tensor_overhead() + 64), .mem_buffer = nullptr, .no_alloc = false}), &ggml_free) {
    gguf_set_val_str(gguf_.get(), "general.architecture", architecture.c_str());
  }
  gguf_context* gguf() { return gguf_.get(); }
  void number(const char* key, int64_t value) { gguf_set_val_u32(gguf_.get(), (prefix_ + key).c_str(), static_cast<uint32_t>(value)); }
  void real(const char* key, double value) { gguf_set_val_f32(gguf_.get(), (prefix_ + key).c_str(), static_cast<float>(value)); }

  void tensor(const std::string& name, const Tensor& values) {
    const Tensor whole = values.detach().to(torch::kFloat).contiguous();
    int64_t n[4] = {1, 1, 1, 1};
    for (int64_t i = 0; i < whole.dim(); ++i) n[i] = whole.size(whole.dim() - 1 - i);
    ggml_tensor* t = ggml_new_tensor(tensors_.get(), GGML_TYPE_F32, static_cast<int>(whole.dim()), n);
    ggml_set_name(t, name.c_str());
    std::copy_n(whole.data_ptr<float>(), whole.numel(), static_cast<float*>(t->data));
    gguf_add_tensor(gguf_.get(), t);
  }

  static InputError no_room(const std::string& path) { return InputError(fmt::format("cannot write '{}': no room for temporary files; make some", path)); }

  void write(const std::string& path) {
    AtomicFile file(path);
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> part(std::tmpfile(), &std::fclose);
    if (!part || !gguf_write_to_file_ptr(gguf_.get(), part.get(), /*only_meta=*/false) || std::fflush(part.get()) != 0) throw no_room(path);
    std::rewind(part.get());
    char block[1 << 16];
    while (const size_t n = std::fread(block, 1, sizeof block, part.get())) file.write({block, n});
    if (std::ferror(part.get())) throw no_room(path);
    file.commit();
  }

 private:
  std::string prefix_;
  std::unique_ptr<gguf_context, void (*)(gguf_context*)> gguf_;
  std::unique_ptr<ggml_context, void (*)(ggml_context*)> tensors_;
};

void write_vocabulary(const Vocabulary& vocabulary, bool diffusion, bool adds_bos, gguf_context* gguf) {
  std::vector<const char*> texts;
  std::vector<float> scores;
  std::vector<int32_t> kinds;
  for (const Piece& p : vocabulary.pieces()) texts.push_back(p.text.c_str()), scores.push_back(p.score), kinds.push_back(static_cast<int32_t>(p.kind));
  if (diffusion) texts.push_back("<mask>"), scores.push_back(0), kinds.push_back(static_cast<int32_t>(PieceKind::control));
  gguf_set_val_str(gguf, "tokenizer.ggml.model", "llama");
  gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", texts.data(), texts.size());
  gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
  gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, kinds.data(), kinds.size());
  gguf_set_val_u32(gguf, "tokenizer.ggml.bos_token_id", vocabulary.bos());
  gguf_set_val_u32(gguf, "tokenizer.ggml.eos_token_id", vocabulary.eos());
  gguf_set_val_u32(gguf, "tokenizer.ggml.unknown_token_id", vocabulary.unknown());
  if (diffusion) gguf_set_val_u32(gguf, "tokenizer.ggml.mask_token_id", static_cast<uint32_t>(vocabulary.size()));
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", adds_bos);
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_space_prefix", false);
}

// From halves to neighbours: rows of a query or key projection, head by head; `weight` is [n_head * d_head, ...].
Tensor interleaved(const Tensor& weight, int d_head) { return weight.detach().reshape({-1, 2, d_head / 2, weight.numel() / weight.size(0)}).transpose(1, 2).reshape(weight.sizes()); }

void write_experts(ExpertsImpl& experts, const std::string& block, File& file) {
  file.tensor(block + "ffn_gate_inp.weight", experts.router->weight);
  const auto stacked = [&](auto part) {
    std::vector<Tensor> list;
    for (Mlp& e : experts.experts) list.push_back(part(*e));
    return torch::stack(list);
  };
  file.tensor(block + "ffn_gate_exps.weight", stacked([](MlpImpl& m) { return m.gate->weight; }));
  file.tensor(block + "ffn_up_exps.weight", stacked([](MlpImpl& m) { return m.up->weight; }));
  file.tensor(block + "ffn_down_exps.weight", stacked([](MlpImpl& m) { return m.down->weight; }));
  for (Mlp& shared : experts.shared) {
    file.tensor(block + "ffn_gate_shexp.weight", shared->gate->weight);
    file.tensor(block + "ffn_up_shexp.weight", shared->up->weight);
    file.tensor(block + "ffn_down_shexp.weight", shared->down->weight);
  }
}

}  // namespace

std::string why_not_gguf(const ModelConfig& c) {
  const auto because = [](const std::string& what) { return "sinkscope-train writes no architecture with " + what; };
  if (!variant(c.attention).gguf) return because(fmt::format("model.attention = {}", c.attention));
  if (c.norm != "pre") return because(fmt::format("model.norm = {}", c.norm));
  if (c.position != "rope") return because(fmt::format("model.position = {}", c.position));
  if (c.activation != "swiglu") return because(fmt::format("model.activation = {}", c.activation));
  if (c.window > 0) return because(fmt::format("model.window = {}", c.window));
  if (c.prefix > 0) return because(fmt::format("model.prefix = {}", c.prefix));
  if (!architecture_of(c)) return because(fmt::format("model.experts = {}, model.experts_shared = {}, model.qk_norm = {} and model.diffusion = {} together", c.n_expert, c.n_expert_shared, c.qk_norm, c.diffusion));
  return "";
}

void write_gguf(LanguageModel& model, const TokenFile& data, bool adds_bos, int n_context, const std::string& path) {
  const ModelConfig& c = model->config;
  if (const std::string refused = why_not_gguf(c); !refused.empty()) throw InputError(fmt::format("cannot write '{}': {}; change the model", path, refused));
  const Architecture& a = *architecture_of(c);
  File file(a.name, static_cast<size_t>(model->n_parameter()) * sizeof(float) * (c.n_expert > 0 ? 2 : 1), model->parameters().size());
  gguf_set_val_str(file.gguf(), "general.name", fmt::format("sinkscope {} {:.1f}M", c.attention, static_cast<double>(model->n_parameter()) / 1e6).c_str());
  file.number("vocab_size", model->embedding->weight.size(0));
  file.number("context_length", n_context);
  file.number("embedding_length", c.d_model);
  file.number("block_count", c.n_layer);
  file.number("feed_forward_length", c.d_ff);
  file.number("attention.head_count", c.n_head);
  file.number("attention.head_count_kv", c.n_head_kv);
  file.number("attention.key_length", c.d_head);
  file.number("attention.value_length", c.d_head);
  file.number("rope.dimension_count", c.d_head);
  file.real("rope.freq_base", c.rope_base);
  file.real("attention.layer_norm_rms_epsilon", RmsNormImpl::kEpsilon);
  if (a.experts) {
    file.number("expert_count", c.n_expert);
    file.number("expert_used_count", c.n_expert_used);
    file.number("expert_feed_forward_length", c.d_ff);
    if (a.shared) file.number("expert_shared_feed_forward_length", c.d_ff);
  }
  if (a.diffusion) gguf_set_val_bool(file.gguf(), "diffusion.shift_logits", false);
  write_vocabulary(data.vocabulary(), c.diffusion, adds_bos, file.gguf());

  file.tensor("token_embd.weight", model->embedding->weight);
  file.tensor("output_norm.weight", model->norm->weight);
  if (model->output) file.tensor("output.weight", model->output->weight);
  std::map<std::string, std::vector<std::vector<float>>> learned;  // by name: [layer][head] or [layer][KV head * d]
  for (int l = 0; l < c.n_layer; ++l) {
    LayerImpl& layer = *model->layers[l];
    const std::string block = fmt::format("blk.{}.", l);
    const auto turned = [&](const Tensor& weight) { return a.turns_neighbours ? interleaved(weight, c.d_head) : weight; };
    file.tensor(block + "attn_norm.weight", layer.attention_norm->weight);
    file.tensor(block + "attn_q.weight", turned(layer.attention->query->weight));
    file.tensor(block + "attn_k.weight", turned(layer.attention->key->weight));
    file.tensor(block + "attn_v.weight", layer.attention->value->weight);
    file.tensor(block + "attn_output.weight", layer.attention->output->weight);
    if (layer.attention->query_norm) {
      file.tensor(block + "attn_q_norm.weight", layer.attention->query_norm->weight);
      file.tensor(block + "attn_k_norm.weight", layer.attention->key_norm->weight);
    }
    file.tensor(block + "ffn_norm.weight", layer.mlp_norm->weight);
    if (layer.experts) write_experts(*layer.experts, block, file);
    else {
      file.tensor(block + "ffn_gate.weight", layer.mlp->gate->weight);
      file.tensor(block + "ffn_up.weight", layer.mlp->up->weight);
      file.tensor(block + "ffn_down.weight", layer.mlp->down->weight);
    }
    const auto learn = [&](const char* name, const Tensor& values) {
      if (!values.defined()) return;
      const Tensor flat = values.detach().contiguous();
      learned[name].emplace_back(flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel());
    };
    learn("sink_logits", layer.attention->learned.sink_logit);
    if (const Tensor& bias = layer.attention->key_bias; bias.defined()) learn("key_bias", turned(bias.reshape({-1, 1})));
    learn("value_bias", layer.attention->value_bias);
  }
  if (const std::string kind = variant(c.attention).gguf; !kind.empty()) {
    gguf_set_val_str(file.gguf(), "sinkscope.attention.kind", kind.c_str());
    for (const auto& [name, layers] : learned) gguf_set_val_str(file.gguf(), ("sinkscope.attention." + name).c_str(), nlohmann::json(layers).dump().c_str());
  }
  file.write(path);
}

}  // namespace sinkscope::train
