#include "session/model_json.h"
#include "sinkscope/denoise.h"

namespace sinkscope {

using session::dumped, session::Json, session::model_json, session::number;

std::string to_json(const Denoised& d) {
  const DenoiseOptions& o = d.options;
  Json json = {{"schema", "sinkscope.denoise/1"}, {"model", model_json(d.model, d.sha256)},
               {"run", {{"length", o.length}, {"block", o.block}, {"steps", o.steps}, {"temperature", number(o.temperature)}, {"remasking", o.remasking},
                        {"epsilon", number(o.epsilon)}, {"seed", o.seed}, {"mask", d.mask}, {"bos", o.bos}, {"threads", d.threads}, {"isa", o.isa}, {"blas", !o.no_blas}, {"n_prompt", d.n_prompt}, {"n_head", d.n_head}}},
               {"tokens", d.tokens}, {"text", d.text}};
  json["steps"] = Json::array();
  for (const DenoiseStep& s : d.steps) {
    Json step = {{"step", s.step}, {"n_masked", s.n_masked}, {"centre", number(s.centre)}, {"n_sink_head", s.n_sink_head}, {"sinks", Json::array()}};
    for (const MovingSink& m : s.sinks)
      step["sinks"].push_back({{"position", m.position}, {"token", m.token}, {"text", m.text}, {"sink_rate", number(m.sink_rate)}, {"column_sum", number(m.column_sum)}});
    json["steps"].push_back(std::move(step));
  }
  json["notes"] = d.notes;
  return dumped(json);
}

}  // namespace sinkscope
