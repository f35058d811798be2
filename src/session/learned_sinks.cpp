#include "session/learned_sinks.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::session {

std::vector<std::vector<float>> learned_sinks(const Model::Impl& model) {
  const std::string kind = model.meta("sinkscope.attention.kind");
  const ModelInfo& info = model.info;
  if (kind.empty()) return {};
  if (kind == "off-by-one") return std::vector(info.n_layer, std::vector<float>(info.n_head, 0.0f));
  if (kind != "sink-logits")
    throw InputError(fmt::format("'{}' asks for attention of kind '{}' (sinkscope.attention.kind), known are off-by-one and sink-logits; export it with another variant", info.file, kind));
  std::vector<std::vector<float>> logits;
  const auto json = nlohmann::json::parse(model.meta("sinkscope.attention.sink_logits"), nullptr, /*allow_exceptions=*/false);
  for (const auto& layer : json.is_array() ? json : nlohmann::json::array()) {
    std::vector<float>& of_layer = logits.emplace_back();
    for (const auto& x : layer.is_array() ? layer : nlohmann::json::array())
      if (x.is_number()) of_layer.push_back(x.get<float>());
  }
  if (static_cast<int>(logits.size()) != info.n_layer || std::ranges::any_of(logits, [&](const auto& l) { return static_cast<int>(l.size()) != info.n_head; }))
    throw InputError(fmt::format("'{}' holds no logits of {} layers with {} heads each (sinkscope.attention.sink_logits); export it again", info.file, info.n_layer, info.n_head));
  return logits;
}

}  // namespace sinkscope::session
