#include "planted.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <ggml.h>
#include <gguf.h>

namespace sinkscope::planted {
namespace {

constexpr const char* kPieces[] = {"[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "\u2581,", "\u2581rain", "\u2581falls", "\u2581on", "\u2581roofs"};
constexpr int kCls = 1, kSep = 2, kComma = 5;
constexpr int kVocab = 32, kEmbd = 64, kHead = 4, kHeadSize = kEmbd / kHead, kFf = 8, kContext = 128;
// What dimensions of the hidden state mean; those from kWords on hold what a word is.
enum Feature { kIsFirst = 0, kIsSeventh = 1, kIsStop = 2, kIsWord = 3, kWords = 8 };
constexpr float kLoud = 4;   // of a feature, against words of about kQuiet
constexpr float kQuiet = 0.3f;

// A GGUF file in the making. Values are functions of (column, row), column fastest.
class File {
 public:
  explicit File(const char* architecture) : prefix_(std::string(architecture) + "."), gguf_(gguf_init_empty(), &gguf_free), tensors_(nullptr, &ggml_free) {
    tensors_.reset(ggml_init({.mem_size = 16 << 20, .mem_buffer = nullptr, .no_alloc = false}));
    gguf_set_val_str(gguf_.get(), "general.architecture", architecture);
    gguf_set_val_str(gguf_.get(), "general.name", "planted");
    number("context_length", kContext);
    number("embedding_length", kEmbd);
    number("attention.head_count", kHead);
    number("attention.head_count_kv", kHead);
  }
  void no_words() {
    gguf_set_val_str(gguf_.get(), "tokenizer.ggml.model", "none");
    number("vocab_size", kVocab);
  }
  void wordpiece() {
    constexpr int kNormal = 1, kControl = 3;  // as GGUF numbers kinds of tokens
    gguf_set_val_str(gguf_.get(), "tokenizer.ggml.model", "bert");
    gguf_set_arr_str(gguf_.get(), "tokenizer.ggml.tokens", const_cast<const char**>(kPieces), std::size(kPieces));
    gguf_set_val_u32(gguf_.get(), "tokenizer.ggml.token_type_count", 1);  // of sentences
    std::vector<int32_t> kinds;
    for (const std::string_view piece : kPieces) kinds.push_back(piece.starts_with('[') ? kControl : kNormal);
    gguf_set_arr_data(gguf_.get(), "tokenizer.ggml.token_type", GGUF_TYPE_INT32, kinds.data(), kinds.size());
    const std::pair<const char*, uint32_t> marks[] = {{"padding", 0}, {"bos", kCls}, {"cls", kCls}, {"seperator", kSep}, {"unknown", 3}, {"mask", 4}};
    for (const auto& [name, token] : marks) gguf_set_val_u32(gguf_.get(), ("tokenizer.ggml." + std::string(name) + "_token_id").c_str(), token);
  }
  void number(const char* key, uint32_t value) { gguf_set_val_u32(gguf_.get(), (prefix_ + key).c_str(), value); }
  void flag(const char* key, bool value) { gguf_set_val_bool(gguf_.get(), (prefix_ + key).c_str(), value); }
  void real(const char* key, float value) { gguf_set_val_f32(gguf_.get(), (prefix_ + key).c_str(), value); }

  using Value = std::function<float(int, int)>;
  void tensor(const std::string& name, int n_column, int n_row, const Value& value, int n_matrix = 1) {
    ggml_tensor* t = n_matrix > 1 ? ggml_new_tensor_3d(tensors_.get(), GGML_TYPE_F32, n_column, n_row / n_matrix, n_matrix)
                     : n_row > 1 ? ggml_new_tensor_2d(tensors_.get(), GGML_TYPE_F32, n_column, n_row) : ggml_new_tensor_1d(tensors_.get(), GGML_TYPE_F32, n_column);
    ggml_set_name(t, name.c_str());
    for (int r = 0; r < n_row; ++r)
      for (int c = 0; c < n_column; ++c) static_cast<float*>(t->data)[static_cast<size_t>(r) * n_column + c] = value(c, r);
    gguf_add_tensor(gguf_.get(), t);
  }
  void write(const std::string& path) const {
    if (!gguf_write_to_file(gguf_.get(), path.c_str(), /*only_meta=*/false)) throw std::runtime_error("cannot write " + path);
  }

 private:
  std::string prefix_;
  std::unique_ptr<gguf_context, void (*)(gguf_context*)> gguf_;
  std::unique_ptr<ggml_context, void (*)(ggml_context*)> tensors_;
};

float zero(int, int) { return 0; }
float one(int, int) { return 1; }

// Words are small and random, the same for both models.
float word(int dim, int token) {
  std::mt19937 random(static_cast<uint32_t>(token * kEmbd + dim));
  return dim < kWords ? 0 : std::uniform_real_distribution<float>(-kQuiet, kQuiet)(random);
}

std::string block(int layer, const char* name) { return "blk." + std::to_string(layer) + "." + name; }

}  // namespace

void write_gpt2(const std::string& path) {
  File file("gpt2");
  file.no_words();
  file.number("block_count", kLayers);
  file.number("feed_forward_length", kFf);
  file.real("attention.layer_norm_epsilon", 1e-5f);
  file.tensor("token_embd.weight", kEmbd, kVocab, [](int d, int token) { return d == kIsStop && token == kStop ? kLoud : word(d, token); });
  file.tensor("position_embd.weight", kEmbd, kContext, [](int d, int position) { return (d == kIsFirst && position == 0) || (d == kIsSeventh && position == 7) ? kLoud : 0.0f; });
  file.tensor("output_norm.weight", kEmbd, 1, one);
  file.tensor("output_norm.bias", kEmbd, 1, zero);
  for (int l = 0; l < kLayers; ++l) {
    for (const char* norm : {"attn_norm", "ffn_norm"}) {
      file.tensor(block(l, norm) + ".weight", kEmbd, 1, one);
      file.tensor(block(l, norm) + ".bias", kEmbd, 1, zero);
    }
    // Queries are the same for all tokens: component 0 of each head. Keys have the head's feature there. Values are the words.
    const auto is_key = [&](int row, int head) { return l == 0 && row == kEmbd + head * kHeadSize; };
    file.tensor(block(l, "attn_qkv.weight"), kEmbd, 3 * kEmbd, [&](int d, int row) {
      for (int head = 0; head < 3; ++head)
        if (is_key(row, head)) return d == head ? 1.0f : 0.0f;  // feature number = head number
      return row >= 2 * kEmbd && d == row - 2 * kEmbd && d >= kWords ? 0.1f : 0.0f;
    });
    file.tensor(block(l, "attn_qkv.bias"), 3 * kEmbd, 1, [&](int row, int) { return l == 0 && row < kEmbd && row % kHeadSize == 0 ? 8.0f : 0.0f; });
    file.tensor(block(l, "attn_output.weight"), kEmbd, kEmbd, [](int d, int row) { return d == row && d >= kWords ? 0.1f : 0.0f; });
    file.tensor(block(l, "attn_output.bias"), kEmbd, 1, zero);
    // One hidden unit: on for position 0 alone. Behind its normalisation the feature is about 6, and the massive number, once there,
    // about 8 while everything else is nearly 0.
    const float gain = l == kRisesIn ? kMassiveValue : l == kFallsIn ? -kMassiveValue : 0;
    const int seen = l == kFallsIn ? kMassiveDim : kIsFirst;
    file.tensor(block(l, "ffn_up.weight"), kEmbd, kFf, [&](int d, int unit) { return gain != 0 && unit == 0 && d == seen ? 1.0f : 0.0f; });
    file.tensor(block(l, "ffn_up.bias"), kFf, 1, [&](int unit, int) { return gain != 0 && unit == 0 ? -4.0f : 0.0f; });
    file.tensor(block(l, "ffn_down.weight"), kFf, kEmbd, [&](int unit, int d) { return unit == 0 && d == kMassiveDim ? gain / (l == kFallsIn ? 3.94f : 3.588f) : 0.0f; });
    file.tensor(block(l, "ffn_down.bias"), kEmbd, 1, zero);
  }
  file.write(path);
}

void write_moe(const std::string& path) {
  File file("llama");
  file.no_words();
  constexpr int kMoeLayers = 3;
  file.number("block_count", kMoeLayers);
  file.number("feed_forward_length", kFf);
  file.number("expert_feed_forward_length", kFf);
  file.number("expert_count", kExperts);
  file.number("expert_used_count", 1);
  file.number("rope.dimension_count", kHeadSize);
  file.real("rope.freq_base", 1e9f);  // the last pair of components turns by less than 1e-7 a position
  file.real("attention.layer_norm_rms_epsilon", 1e-5f);
  file.tensor("token_embd.weight", kEmbd, kVocab, [](int d, int token) { return d == kIsFirst && token == kBos ? kLoud : d == kIsWord && token != kBos ? kQuiet : word(d, token); });
  file.tensor("output_norm.weight", kEmbd, 1, one);
  constexpr int kStill = kHeadSize - 1;  // the component that does not turn
  for (int l = 0; l < kMoeLayers; ++l) {
    file.tensor(block(l, "attn_norm.weight"), kEmbd, 1, one);
    file.tensor(block(l, "ffn_norm.weight"), kEmbd, 1, one);
    file.tensor(block(l, "attn_q.weight"), kEmbd, kEmbd, zero);
    file.tensor(block(l, "attn_q.bias"), kEmbd, 1, [&](int row, int) { return l != 1 && row % kHeadSize == kStill ? 8.0f : 0.0f; });
    const int feature = l == 0 ? kIsFirst : kMassiveDim;
    file.tensor(block(l, "attn_k.weight"), kEmbd, kEmbd, [&](int d, int row) { return l != 1 && row % kHeadSize == kStill && d == feature ? 1.0f : 0.0f; });
    file.tensor(block(l, "attn_v.weight"), kEmbd, kEmbd, [](int d, int row) { return d == row && d >= kWords ? 0.1f : 0.0f; });
    file.tensor(block(l, "attn_output.weight"), kEmbd, kEmbd, [](int d, int row) { return d == row && d >= kWords ? 0.1f : 0.0f; });
    // BOS goes to its expert; words to the others, by what they are.
    file.tensor(block(l, "ffn_gate_inp.weight"), kEmbd, kExperts, [&](int d, int expert) {
      if (d == kIsWord) return expert == kExpert ? -8.0f : 0.0f;
      if (d == kIsFirst || d == kMassiveDim) return expert == kExpert ? 2.0f : -2.0f;
      return expert != kExpert && d == kWords + expert ? 1.0f : 0.0f;
    });
    const auto acts = [&](int row) { return l < kExpertLayers && row == kExpert * kFf; };  // unit 0 of the expert
    const int sees = l == 0 ? kIsFirst : kMassiveDim;
    file.tensor(block(l, "ffn_gate_exps.weight"), kEmbd, kFf * kExperts, [&](int d, int row) { return acts(row) && d == sees ? 1.0f : 0.0f; }, kExperts);
    file.tensor(block(l, "ffn_up_exps.weight"), kEmbd, kFf * kExperts, [&](int d, int row) { return acts(row) && d == sees ? 1.0f : 0.0f; }, kExperts);
    file.tensor(block(l, "ffn_down_exps.weight"), kFf, kEmbd * kExperts, [&](int unit, int row) {
      return l < kExpertLayers && unit == 0 && row == kExpert * kEmbd + kMassiveDim ? kMassiveValue / 50 : unit > 0 && row % kEmbd >= kWords ? 0.01f : 0.0f;
    }, kExperts);
  }
  file.write(path);
}

void write_bert(const std::string& path) {
  File file("bert");
  file.wordpiece();
  constexpr int kWordsOfBert = std::size(kPieces);
  file.number("block_count", 1);
  file.number("feed_forward_length", kFf);
  file.real("attention.layer_norm_epsilon", 1e-5f);
  file.flag("attention.causal", false);
  // Dimension = head: what head 0, 1 and 2 look for.
  file.tensor("token_embd.weight", kEmbd, kWordsOfBert, [](int d, int token) {
    const int marks[] = {kCls, kSep, kComma};
    return d < 3 ? (token == marks[d] ? kLoud : 0.0f) : word(d, token);
  });
  file.tensor("position_embd.weight", kEmbd, kContext, zero);
  file.tensor("token_types.weight", kEmbd, 1, zero);
  const auto norm = [&](const std::string& name) {
    file.tensor(name + ".weight", kEmbd, 1, one);
    file.tensor(name + ".bias", kEmbd, 1, zero);
  };
  norm("token_embd_norm");
  norm(block(0, "attn_output_norm"));
  norm(block(0, "layer_output_norm"));
  const auto is_first_of_head = [](int row) { return row % kHeadSize == 0; };
  const auto linear = [&](const char* name, int n_in, int n_out, const File::Value& weight, const File::Value& bias) {
    file.tensor(block(0, name) + ".weight", n_in, n_out, weight);
    file.tensor(block(0, name) + ".bias", n_out, 1, bias);
  };
  linear("attn_q", kEmbd, kEmbd, zero, [&](int row, int) { return is_first_of_head(row) ? 8.0f : 0.0f; });
  linear("attn_k", kEmbd, kEmbd, [&](int d, int row) { return is_first_of_head(row) && row / kHeadSize < 3 && d == row / kHeadSize ? 1.0f : 0.0f; }, zero);
  linear("attn_v", kEmbd, kEmbd, [](int d, int row) { return d == row && d >= kWords ? 0.1f : 0.0f; }, zero);
  linear("attn_output", kEmbd, kEmbd, [](int d, int row) { return d == row && d >= kWords ? 0.1f : 0.0f; }, zero);
  linear("ffn_up", kEmbd, kFf, zero, zero);
  linear("ffn_down", kFf, kEmbd, zero, zero);
  file.write(path);
}

std::vector<std::vector<int>> prompts(int n) {
  std::vector<std::vector<int>> all;
  std::mt19937 random(5);
  for (int p = 0; p < n; ++p) {
    std::vector<int>& prompt = all.emplace_back();
    prompt.push_back(kBos);
    while (static_cast<int>(prompt.size()) < kTokens) prompt.push_back(prompt.size() % 16 == 12 ? kStop : static_cast<int>(8 + random() % (kVocab - 8)));
  }
  return all;
}

}  // namespace sinkscope::planted
