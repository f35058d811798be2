#include "profile/run.h"
#include "session/model_json.h"
#include "sinkscope/ablate.h"

namespace sinkscope {
namespace {

using session::dumped, session::Json, session::model_json, session::number;

Json change_json(const Change& c) {
  return {{"loss", number(c.loss)}, {"loss_change", number(c.loss_change)}, {"loss_change_ci95", profile_run::interval_json(c.loss_change_ci95)},
          {"kl", number(c.kl)}, {"same_top", number(c.same_top)}, {"sink_rate", number(c.sink_rate)}};
}

}  // namespace

std::string to_json(const Ablations& a) {
  Json json = {{"schema", "sinkscope.ablate/1"}, {"model", model_json(a.model, a.sha256)}, {"run", profile_run::run_json(a.run)}, {"controls", a.controls},
               {"loss", number(a.loss)}, {"sink_rate", number(a.sink_rate)}};
  json["edits"] = Json::array();
  for (const Ablation& e : a.edits) {
    Json edit = {{"edit", e.edit}};
    edit.update(change_json(e.change));
    edit["control"] = e.control ? change_json(*e.control) : Json(nullptr);
    edit["control_of"] = e.control_of;
    json["edits"].push_back(std::move(edit));
  }
  json["notes"] = a.notes;
  return dumped(json);
}

}  // namespace sinkscope
