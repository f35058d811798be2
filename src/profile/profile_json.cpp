#include <algorithm>

#include <nlohmann/json.hpp>

#include "measure/metrics.h"
#include "profile/run.h"
#include "session/model_json.h"
#include "sinkscope/profile.h"

namespace sinkscope {
namespace {

using profile_run::interval_json, profile_run::run_json;
using session::dumped, session::Json, session::model_json, session::number, session::numbers;

Json rate_json(const SinkRate& r) {
  Json json = {{"first", number(r.first)}, {"null", number(r.null)}};
  json["first_ci95"] = interval_json(r.first_ci95);
  json["by_position"] = numbers(r.by_position);
  json["null_by_position"] = numbers(r.null_by_position);
  json["alpha_by_position"] = numbers(r.alpha_by_position);
  json["uniform_alpha_by_position"] = numbers(r.uniform_alpha_by_position);
  json["sum_by_position"] = numbers(r.sum_by_position);
  json["share_by_position"] = numbers(r.share_by_position);
  return json;
}

Json layer_json(const LayerProfile& l) {
  Json json = {{"layer", l.layer}, {"measured", l.measured}};
  if (l.measured) {
    json["sink_rate_first"] = number(l.sink_rate_first);
    json["first_share"] = number(l.first_share);
    json["entropy"] = number(l.entropy);
    json["strongest_is_first"] = number(l.strongest_is_first);
  }
  json["heads"] = Json::array();
  for (const HeadProfile& h : l.heads) {
    Json head = {{"head", h.head}, {"alpha_first", number(h.alpha_first)}, {"sink_rate_first", number(h.sink_rate_first)},
                 {"entropy", number(h.entropy)}, {"strongest_is_first", number(h.strongest_is_first)},
                 {"first_share", number(h.first_share)}};
    if (l.learned_sink) head["learned_sink_mass"] = number(h.learned_sink_mass);
    json["heads"].push_back(std::move(head));
  }
  return json;
}

Json heads_json(const Sink& s, bool with_alpha) {
  Json list = Json::array();
  for (const LayerHead& h : s.heads)
    list.push_back(with_alpha ? Json{h.layer, h.head, number(h.alpha)} : Json{h.layer, h.head});
  return list;
}

}  // namespace

Json profile_run::run_json(const RunInfo& r) {
  return {{"epsilon", number(r.epsilon)}, {"min_rows", r.min_rows},   {"length", r.length},   {"shortest", r.shortest},
          {"n_prompt", r.n_prompt},       {"n_token", r.n_token},     {"bos", r.bos},         {"kv_type", r.kv_type},
          {"threads", r.threads},         {"batch", r.batch},         {"isa", r.isa},         {"seed", r.seed},
          {"seconds", number(r.seconds)}, {"tokens_per_second", number(r.tokens_per_second)},
          {"peak_rss_bytes", r.peak_rss_bytes}};
}

Json profile_run::interval_json(const std::optional<Interval>& i) { return i ? Json{number(i->low), number(i->high)} : Json(nullptr); }

Json profile_run::profile_json(const Profile& p) {
  Json json = {{"schema", "sinkscope.profile/1"}, {"answer", p.answer()}, {"model", model_json(p.model, p.sha256)}, {"run", run_json(p.run)},
               {"sink_rate", rate_json(p.sink_rate)}};
  json["run"]["maps"] = p.maps;
  json["first"] = {{"n", p.first.n}, {"share", numbers(p.first.share)}, {"uniform", numbers(p.first.uniform)},
                   {"boost", numbers(p.first.boost)}, {"last_rows", p.first.last_rows}, {"share_ci95", Json::array()}};
  for (const Interval& i : p.first.share_ci95) json["first"]["share_ci95"].push_back(interval_json(i));
  json["mass"] = number(p.mass);
  json["strongest_is_first"] = number(p.strongest_is_first);
  json["strongest_is_first_ci95"] = interval_json(p.strongest_is_first_ci95);
  json["learned_sink"] = p.learned_sink ? Json{{"alpha", number(p.learned_sink->alpha)}, {"sink_rate", number(p.learned_sink->sink_rate)}}
                                        : Json(nullptr);
  json["layers"] = Json::array();
  for (const LayerProfile& l : p.layers) json["layers"].push_back(layer_json(l));
  json["sinks"] = Json::array();
  for (const Sink& s : p.sinks)
    json["sinks"].push_back({{"position", s.position}, {"token", s.token}, {"text", s.text}, {"special", s.special},
                             {"token_share", number(s.token_share)}, {"sink_rate", number(s.sink_rate)}, {"sink_rate_ci95", interval_json(s.sink_rate_ci95)},
                             {"alpha", number(s.alpha)}, {"heads", heads_json(s, false)}});
  json["tokens"] = Json::array();
  for (const SinkToken& t : p.tokens)
    json["tokens"].push_back({{"token", t.token}, {"text", t.text}, {"special", t.special}, {"n", t.n}, {"sink_rate", number(t.sink_rate)}});
  json["baselines"] = Json::array();
  for (const Baseline& b : p.baselines) {
    Json rate = rate_json(b.sink_rate);
    rate["kind"] = b.kind;
    json["baselines"].push_back(std::move(rate));
  }
  json["notes"] = p.notes;
  json["prompts"] = Json::array();
  for (const PromptTokens& prompt : p.prompts) {
    json["prompts"].push_back({{"tokens", prompt.tokens}, {"texts", prompt.texts}});
    if (std::ranges::count(prompt.special, true) > 0) json["prompts"].back()["special"] = prompt.special;
  }
  if (!p.arrays.empty()) json["arrays"] = p.arrays;
  return json;
}

std::string to_json(const Profile& p) { return dumped(profile_run::profile_json(p)); }

std::string to_sink_map_json(const Profile& p) {
  Json json = {{"schema", "sinkscope.sinkmap/1"},
               {"model", {{"sha256", p.sha256}, {"architecture", p.model.architecture}, {"name", p.model.name},
                          {"n_layer", p.model.n_layer}, {"n_head", p.model.n_head}, {"n_head_kv", p.model.n_head_kv},
                          {"n_vocab", p.model.n_vocab}}},
               {"bos", p.run.bos},
               {"parameters", {{"epsilon", number(p.run.epsilon)}, {"min_rows", p.run.min_rows}, {"length", p.run.length},
                               {"n_prompt", p.run.n_prompt}, {"kv_type", p.run.kv_type}, {"threshold_percent", measure::kSinkPositionPercent},
                               {"null_first", number(p.sink_rate.null)}}}};
  json["positions"] = Json::array();
  for (const Sink& s : p.sinks)
    json["positions"].push_back({{"position", s.position}, {"token", s.token}, {"text", s.text},
                                 {"token_share", number(s.token_share)}, {"sink_rate", number(s.sink_rate)},
                                 {"alpha", number(s.alpha)}, {"heads", heads_json(s, true)}});
  json["tokens"] = Json::array();
  for (const SinkToken& t : p.tokens)
    json["tokens"].push_back({{"token", t.token}, {"text", t.text}, {"n", t.n}, {"sink_rate", number(t.sink_rate)}});
  return dumped(json);
}

}  // namespace sinkscope
