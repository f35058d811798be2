#include "session/model_json.h"

#include <cmath>

namespace sinkscope::session {

Json number(double v) { return std::isfinite(v) ? Json(std::round(v * 1e6) / 1e6) : Json(nullptr); }

Json numbers(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double v : values) list.push_back(number(v));
  return list;
}

Json model_json(const ModelInfo& m, const std::string& sha256) {
  return {{"file", m.file},       {"sha256", sha256},   {"architecture", m.architecture}, {"name", m.name},
          {"n_layer", m.n_layer}, {"n_head", m.n_head}, {"n_head_kv", m.n_head_kv}, {"n_expert", m.n_expert}, {"n_vocab", m.n_vocab},
          {"n_context_train", m.n_context_train},       {"file_type", m.file_type}, {"attention", m.attention}};
}

std::string dumped(const Json& json) { return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace sinkscope::session
