#include "explain/explain_json.h"

#include <cmath>

#include <fmt/format.h>

#include "profile/run.h"

namespace sinkscope {
namespace {

using session::dumped, session::Json, session::model_json, session::number;

// Three digits, or all that stand before the point.
std::string whole(double x) { return std::abs(x) >= 100 ? fmt::format("{:.0f}", x) : fmt::format("{:.3g}", x); }

Json optional_number(const std::optional<double>& x) { return x ? number(*x) : Json(nullptr); }

Json head_json(const HeadCause& h) {
  Json where = Json::array();
  for (const HeadSink& s : h.where) where.push_back({{"position", s.position}, {"token", s.token}, {"text", s.text}, {"special", s.special}, {"share", number(s.share)}});
  return {{"head", h.head}, {"sinks", number(h.sinks)}, {"where", where}, {"entropy", number(h.entropy)}, {"query_norm", number(h.query_norm)}, {"key_norm", number(h.key_norm)}, {"other_key_norm", number(h.other_key_norm)},
          {"cos", number(h.cos)}, {"other_cos", number(h.other_cos)}, {"cos_unrotated", number(h.cos_unrotated)}, {"other_cos_unrotated", number(h.other_cos_unrotated)},
          {"logit", number(h.logit)}, {"other_logit", number(h.other_logit)}, {"gap", number(h.logit - h.other_logit)}, {"gap_by_norm", number(h.gap_by_norm)},
          {"gap_by_angle", number(h.gap_by_angle)}, {"null_mass", number(h.null_mass)}, {"output_share", number(h.output_share)}};
}

Json layer_json(const LayerCause& l) {
  Json json = {{"layer", l.layer}};
  if (l.hidden) {
    json["hidden"] = {{"norm_first", number(l.norm_first)}, {"norm_median", number(l.norm_median)}, {"norm_sinks", optional_number(l.norm_sinks)}, {"top_over_median", number(l.top_over_median)},
                      {"spread", number(l.spread)}, {"moved", optional_number(l.moved)}, {"moved_without_first", optional_number(l.moved_without_first)}};
    json["hidden"]["largest"] = {{"value", number(l.largest.value)}, {"dim", l.largest.dim}, {"prompt", l.largest.prompt}, {"position", l.largest.position},
                                 {"token", l.largest.token}, {"text", l.largest.text}, {"over_median", number(l.largest.over_median)}};
  }
  if (l.heads.empty()) return json;
  json["key_norm_first"] = number(l.key_norm_first);
  json["key_norm_median"] = number(l.key_norm_median);
  json["value_norm_first"] = number(l.value_norm_first);
  json["value_norm_median"] = number(l.value_norm_median);
  json["key_norm_sinks"] = optional_number(l.key_norm_sinks);
  json["value_norm_sinks"] = optional_number(l.value_norm_sinks);
  json["heads"] = Json::array();
  for (const HeadCause& h : l.heads) json["heads"].push_back(head_json(h));
  return json;
}

}  // namespace

Json explain_run::explanation_json(const Explanation& e) {
  Json json = {{"schema", "sinkscope.explain/1"}, {"answer", e.answer()}, {"model", model_json(e.profile.model, e.profile.sha256)},
               {"run", profile_run::run_json(e.profile.run)}, {"onset", e.onset}, {"onset_rise", number(e.onset_rise)}};
  json["layers"] = Json::array();
  for (const LayerCause& l : e.layers) json["layers"].push_back(layer_json(l));
  json["outliers"] = Json::array();
  for (const Outlier& o : e.outliers)
    json["outliers"].push_back({{"dim", o.dim}, {"position", o.position}, {"token", o.token}, {"text", o.text}, {"n_prompt", o.n_prompt}, {"n_place", o.n_place}, {"massive", o.massive},
                                {"sink_dimension", o.sink_dimension}, {"value", number(o.value)}, {"over_median", number(o.over_median)}, {"layer", o.layer},
                                {"first_layer", o.first_layer}, {"last_layer", o.last_layer}, {"rises_in", o.rises_in}, {"rises_by", o.rises_by},
                                {"falls_in", o.falls_in}, {"falls_by", o.falls_by}});
  json["secondary"] = Json::array();
  for (const SecondarySink& s : e.secondary)
    json["secondary"].push_back({{"prompt", s.prompt}, {"position", s.position}, {"token", s.token}, {"text", s.text}, {"first_layer", s.first_layer},
                                 {"last_layer", s.last_layer}, {"kind", s.kind}});
  json["experts"] = Json::array();
  for (const ExpertUse& x : e.experts)
    json["experts"].push_back({{"layer", x.layer}, {"expert", x.expert}, {"sink_share", number(x.sink_share)}, {"other_share", number(x.other_share)},
                               {"sink_weight", number(x.sink_weight)}, {"other_weight", number(x.other_weight)}, {"largest_output", number(x.largest_output)},
                               {"super", x.is_super}});
  json["d_sink"] = optional_number(e.d_sink);
  json["dormant"] = Json::array();
  for (const DormantHead& d : e.dormant)
    json["dormant"].push_back({{"layer", d.layer}, {"head", d.head}, {"sinking_prompt", d.sinking_prompt}, {"working_prompt", d.working_prompt},
                               {"alpha_sinking", number(d.alpha_sinking)}, {"alpha_working", number(d.alpha_working)}, {"loss_sinking", number(d.loss_sinking)},
                               {"loss_working", number(d.loss_working)}});
  json["missing"] = e.missing;
  std::vector<std::string> notes = e.profile.notes;
  notes.insert(notes.end(), e.notes.begin(), e.notes.end());
  json["notes"] = notes;
  return json;
}

std::string to_json(const Explanation& e) { return dumped(explain_run::explanation_json(e)); }

std::string Explanation::answer() const {
  std::string answer = profile.answer();
  if (onset < 0) return answer + "; its graph names no hidden states";
  answer += fmt::format("; the first token's hidden state grows most in layer {}, from {} to {} (others: {})", onset, whole(layers[onset].norm_first), whole(layers[onset + 1].norm_first),
                        whole(layers[onset + 1].norm_median));
  if (!outliers.empty())
    answer += fmt::format(", and dimension {} reaches {} behind layer {} on `{}` at position {}, {:.0f} times the median", outliers[0].dim, whole(outliers[0].value),
                          outliers[0].layer, outliers[0].text, outliers[0].position, outliers[0].over_median);
  return answer;
}

}  // namespace sinkscope
