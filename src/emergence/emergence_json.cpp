#include "profile/run.h"
#include "session/model_json.h"
#include "sinkscope/emergence.h"

namespace sinkscope {

using session::Json, session::number, session::numbers;

std::string to_json(const Emergence& e) {
  Json points = Json::array();
  for (const EmergencePoint& p : e.points)
    points.push_back({{"file", p.file}, {"sha256", p.sha256}, {"step", p.step}, {"sink_rate", number(p.sink_rate)}, {"sink_null", number(p.sink_null)}, {"alpha", number(p.alpha)},
                      {"alpha_null", number(p.alpha_null)}, {"strongest", {{"layer", p.strongest.layer}, {"head", p.strongest.head}, {"alpha", number(p.strongest.alpha)}}},
                      {"mass", number(p.mass)}, {"norm_ratio", numbers(p.norm_ratio)}});
  return session::dumped({{"schema", "sinkscope.emergence/1"}, {"answer", e.answer()}, {"model", session::model_json(e.model, e.points.back().sha256)}, {"run", profile_run::run_json(e.run)},
                          {"points", points}, {"onset", e.onset < 0 ? Json(nullptr) : Json(e.points[e.onset].step)}, {"notes", e.notes}});
}

}  // namespace sinkscope
