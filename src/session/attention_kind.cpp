#include "session/attention_kind.h"

#include <fmt/format.h>
#include <llama-model.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::session {
namespace {

void append_numbers(const nlohmann::json& json, std::vector<float>& to) {
  if (json.is_number()) to.push_back(json.get<float>());
  for (const auto& part : json.is_array() ? json : nlohmann::json::array()) append_numbers(part, to);
}

// [layer][n_number(layer)]; empty where the file has no such key.
template <class Count>
std::vector<std::vector<float>> by_layer(const Model::Impl& model, const std::string& name, const Count& n_number) {
  const std::string key = "sinkscope.attention." + name, text = model.meta(key);
  if (text.empty()) return {};
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  std::vector<std::vector<float>> layers;
  for (const auto& layer : json.is_array() ? json : nlohmann::json::array()) append_numbers(layer, layers.emplace_back());
  bool fits = static_cast<int>(layers.size()) == model.info.n_layer;
  for (size_t l = 0; fits && l < layers.size(); ++l) fits = layers[l].size() == n_number(static_cast<int>(l));
  if (!fits) throw InputError(fmt::format("{} of '{}' is not of its {} layers and their heads; export the model again", key, model.info.file, model.info.n_layer));
  return layers;
}

}  // namespace

backend::AttentionKind attention_kind(const Model::Impl& model) {
  const std::string kind = model.meta("sinkscope.attention.kind");
  const ModelInfo& info = model.info;
  const llama_hparams& h = model.llama->hparams;
  const auto n_head = [&](int l) -> size_t { return h.n_head(l); };
  const auto n_key = [&](int l) -> size_t { return h.n_embd_k_gqa(l); };
  const auto n_value = [&](int l) -> size_t { return h.n_embd_v_gqa(l); };
  const auto zeros = [&](const auto& n_number) {
    std::vector<std::vector<float>> layers;
    for (int l = 0; l < info.n_layer; ++l) layers.emplace_back(n_number(l), 0.0f);
    return layers;
  };
  const auto or_zeros = [&](const char* name, const auto& n_number) {
    auto layers = by_layer(model, name, n_number);
    return layers.empty() ? zeros(n_number) : layers;
  };
  if (kind.empty()) return {};
  if (kind == "off-by-one") return {.sink_logits = zeros(n_head)};
  if (kind == "sigmoid") return {.sigmoid = true};
  if (kind == "kv-bias") return {.key_bias = or_zeros("key_bias", n_key), .value_bias = or_zeros("value_bias", n_value)};
  if (kind != "sink-logits")
    throw InputError(fmt::format("'{}' asks for attention of kind '{}' (sinkscope.attention.kind), known are off-by-one, sink-logits, kv-bias and sigmoid; export it with another variant", info.file, kind));
  backend::AttentionKind logits{.sink_logits = by_layer(model, "sink_logits", n_head)};
  if (logits.sink_logits.empty()) throw InputError(fmt::format("'{}' asks for sink-logits and has no sinkscope.attention.sink_logits; export it again", info.file));
  return logits;
}

}  // namespace sinkscope::session
