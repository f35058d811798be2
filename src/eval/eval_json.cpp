#include "session/model_json.h"
#include "sinkscope/eval.h"

namespace sinkscope {

using session::Json, session::number, session::numbers;

std::string to_json(const Eval& e) {
  Json results = Json::array();
  for (const EvalResult& r : e.results) {
    results.push_back({{"policy", r.policy},
                       {"kv_type", r.kv_type},
                       {"sinks", r.sinks},
                       {"budget_rows", r.budget_rows},
                       {"budget_bytes", r.budget_bytes},
                       {"kv_bytes", r.kv_bytes},
                       {"mean_rows", number(r.mean_rows)},
                       {"ppl", number(r.ppl)},
                       {"ppl_by_1024", numbers(r.ppl_by_1024)},
                       {"tokens_per_second_by_1024", numbers(r.tokens_per_second_by_1024)},
                       {"rss_by_1024", r.rss_by_1024},
                       {"kl", number(r.kl)},
                       {"same_top", number(r.same_top)},
                       {"tokens_per_second", number(r.tokens_per_second)}});
    if (r.answers.empty()) continue;
    Json answers = Json::array();
    for (const EvalResult::Answer& a : r.answers)
      answers.push_back({{"length", a.length}, {"depth", number(a.depth)}, {"line", a.line}, {"expected", a.expected}, {"found", a.found}});
    for (const char* of_text : {"ppl", "ppl_by_1024", "tokens_per_second_by_1024", "rss_by_1024", "kl", "same_top"}) results.back().erase(of_text);
    results.back()["accuracy"] = number(r.accuracy());
    results.back()["answers"] = answers;
  }
  Json sink_maps = Json::array();
  for (const Eval::SinkMapFile& m : e.sink_maps) sink_maps.push_back({{"file", m.file}, {"sha256", m.sha256}});
  return session::dumped({{"schema", "sinkscope.eval/1"},
                          {"model", session::model_json(e.model, e.sha256)},
                          {"run", {{"task", e.options.task}, {"seed", e.options.seed}, {"text", e.options.text}, {"n_token", e.n_token}, {"skip", e.options.skip}, {"alone", e.options.alone}, {"bos", e.bos},
                                   {"chunk", e.options.chunk}, {"positions", e.options.positions}, {"protect", e.options.protect}, {"sink_maps", sink_maps}}},
                          {"results", results},
                          {"notes", e.notes}});
}

}  // namespace sinkscope
