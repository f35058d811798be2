#include "sinkscope/explain.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "explain/arrays.h"
#include "explain/edited_runs.h"
#include "explain/explain_json.h"
#include "explain/expert_uses.h"
#include "explain/outliers.h"
#include "measure/experts.h"
#include "measure/geometry.h"
#include "measure/hidden.h"
#include "measure/metrics.h"
#include "profile/run.h"
#include "report/result_files.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

using explain_run::median_of, measure::HiddenRecord;
using profile_run::Prompt;

constexpr double kSecondaryCos = 0.9;
constexpr size_t kMostWhere = 8;                              // positions of a head
constexpr size_t kMostListed = 64;                            // outliers and secondary sinks

// How long a secondary sink lives: figures for 32 layers, scaled where there are few (docs/metrics.md).
const char* kind_of_lifetime(int lifetime, int n_layer) {
  const double scale = n_layer <= 20 ? n_layer / 32.0 : 1;
  return lifetime >= n_layer - 15 * scale ? "bos-like" : lifetime > 4 * scale ? "secondary" : "noise";
}

// What explain adds to a profile, prompt by prompt.
class Explainer : public profile_run::Companion {
 public:
  Explainer(const ExplainOptions& options, const Progress& progress, Explanation& result) : o_(options), progress_(progress), result_(result), files_({options.explain_json, options.explain_report, options.explain_svg}) {}

  std::vector<io::Place> files() const override {
    std::vector<io::Place> places = files_.places();
    places.emplace_back("--arrays", o_.explain_arrays);
    return places;
  }

  void join(const Size& size, Session& session, const measure::Recorder& recorder, std::vector<Probe*>& probes) override {
    files_.open();
    if (!o_.explain_arrays.empty()) arrays_.emplace(o_.explain_arrays, size);
    model_ = &size.model;
    recorder_ = &recorder;
    hidden_.emplace(session.n_thread());
    geometry_.emplace(session.n_thread());
    probes.push_back(&*geometry_);
    session.hook_attention({&*geometry_});
    session.hook_tensors({&*hidden_, &experts_});
    result_.layers.resize(model_->n_layer + 1);
    for (int l = 0; l <= model_->n_layer; ++l) result_.layers[l].layer = l - 1;
  }

  void leave(Session& session) override {
    session.hook_attention({});
    session.hook_tensors({});
  }

  void start(const Prompt& prompt) override {
    hidden_->start(static_cast<int>(prompt.size()));
    geometry_->start(static_cast<int>(prompt.size()));
    experts_.start();
  }

  void finish(const Prompt& prompt) override {
    geometry_->finish(*recorder_, o_.epsilon, o_.min_rows);
    const std::vector<bool> is_sink = sink_tokens(static_cast<int>(prompt.size()));
    add_hidden(prompt);
    add_secondary(prompt);
    if (!experts_.layers().empty()) expert_uses_.add(experts_.layers(), is_sink);
    add_norms(prompt);
    add_norms_of_sinks(is_sink);
    add_sinks(prompt);
    add_mass(is_sink);
    if (arrays_) arrays_->add(*recorder_, hidden_->records(), geometry_->layers());
    ++n_prompt_;
  }

  void conclude(const Model& model, Session& session, const std::vector<Prompt>& prompts, const Profile& profile) override {
    for (LayerCause& layer : result_.layers) mean_over_prompts(layer);
    find_onset();
    list_outliers(model);
    name_tokens(model);
    result_.experts = expert_uses_.list(experts_.layers(), outliers_.forming_layers());
    find_missing();
    const explain_run::Context context{.model = model, .session = session, .prompts = prompts, .options = o_, .progress = progress_};
    if (o_.perturb > 0) explain_run::perturb(context, result_);
    result_.profile = profile;
    explain_run::confirm_dormant(context, masses_, result_);
    explain_run::silence_super_experts(context, masses_, result_);
    for (const LayerProfile& layer : profile.layers)
      for (HeadCause& head : result_.layers[layer.layer + 1].heads) head.entropy = layer.heads[head.head].entropy;
    files_.write(profile.model.name, to_json(result_));
  }

  session::Json json() const override { return explain_run::explanation_json(result_); }

  std::vector<AtomicFile*> written() override {
    std::vector<AtomicFile*> files = files_.written();
    if (arrays_) files.push_back(&arrays_->file());
    return files;
  }

 private:
  void add_hidden(const Prompt& prompt) {
    const std::span<const HiddenRecord> records = hidden_->records();
    for (size_t l = 0; l < records.size() && l < result_.layers.size(); ++l) {
      const HiddenRecord& r = records[l];
      if (r.norm.empty()) continue;
      LayerCause& layer = result_.layers[l];
      layer.hidden = true;
      const double layer_median = median_of(r.median);
      layer.norm_first += r.norm[0];
      layer.norm_median += median_of({r.norm.begin() + 1, r.norm.end()});
      layer.spread += r.length() > 0 ? r.spread() / r.length() : 0;
      for (size_t i = 0; i < r.norm.size(); ++i) {
        const measure::Peak top = r.peaks[i][0];
        layer.top_over_median += std::abs(top.value) / std::max<double>(r.median[i], std::numeric_limits<float>::min()) / static_cast<double>(r.norm.size());
        if (std::abs(top.value) > std::abs(layer.largest.value))
          layer.largest = {.value = top.value, .dim = top.dim, .prompt = n_prompt_, .position = static_cast<int>(i), .token = prompt[i], .over_median = std::abs(top.value) / layer_median};
      }
    }
    outliers_.add(records, hidden_->steps(), prompt);
  }

  // Between the largest rise and the largest fall of the first token's length.
  void add_secondary(const Prompt& prompt) {
    const std::span<const HiddenRecord> records = hidden_->records();
    size_t rise = 0, fall = records.size();
    double most_up = 0, most_down = 0;
    for (size_t l = 1; l < records.size(); ++l) {
      if (records[l].norm.empty() || records[l - 1].norm.empty()) return;
      const double change = records[l].norm[0] - records[l - 1].norm[0];
      if (change > most_up) most_up = change, rise = l, most_down = 0, fall = records.size();
      if (change < most_down && l > rise) most_down = change, fall = l;
    }
    if (rise == 0) return;
    for (size_t i = 1; i < prompt.size(); ++i) {
      int first = -1, last = -1;
      for (size_t l = rise; l < fall; ++l)
        if (std::abs(records[l].cos_first[i]) > kSecondaryCos) first = first < 0 ? static_cast<int>(l) - 1 : first, last = static_cast<int>(l) - 1;
      if (first < 0) continue;
      ++n_secondary_;
      if (result_.secondary.size() < kMostListed)
        result_.secondary.push_back({.prompt = n_prompt_, .position = static_cast<int>(i), .token = prompt[i], .first_layer = first, .last_layer = last,
                                     .kind = kind_of_lifetime(last - first + 1, model_->n_layer)});
    }
  }

  // Positions of this prompt on which more than a quarter of all heads sink.
  std::vector<bool> sink_tokens(int n_token) const {
    std::vector<int> n_sink(n_token);
    int n_head = 0;
    for (const measure::LayerRecord& layer : recorder_->layers())
      for (int h = 0; h < layer.n_head; ++h, ++n_head)
        for (const int k : layer.sinks(h, n_token, o_.epsilon, o_.min_rows)) ++n_sink[k];
    std::vector<bool> sinks(n_token);
    for (int k = 0; k < n_token; ++k) sinks[k] = 100.0 * n_sink[k] > measure::kSinkPositionPercent * n_head;
    return sinks;
  }

  void add_sinks(const Prompt& prompt) {
    const int n_token = static_cast<int>(prompt.size());
    for (size_t l = 0; l < recorder_->layers().size(); ++l)
      for (int h = 0; h < recorder_->layers()[l].n_head; ++h)
        for (const int k : recorder_->layers()[l].sinks(h, n_token, o_.epsilon, o_.min_rows)) {
          HeadSink& sink = sinks_[{static_cast<int>(l), h, k}];
          if (sink.share == 0) sink.position = k, sink.token = prompt[k];
          sink.share += 1;
        }
  }

  void add_norms(const Prompt& prompt) {
    const int n = static_cast<int>(prompt.size());
    for (size_t l = 0; l < geometry_->layers().size() && l + 1 < result_.layers.size(); ++l) {
      const measure::LayerGeometry& g = geometry_->layers()[l];
      LayerCause& layer = result_.layers[l + 1];
      for (int h = 0; h < g.n_head_kv && !g.key_norm.empty(); ++h) {
        const auto of_head = [&](const std::vector<float>& norms) { return std::vector<float>(norms.begin() + h * n + 1, norms.begin() + (h + 1) * n); };
        layer.key_norm_first += g.key_norm[h * n] / g.n_head_kv;
        layer.value_norm_first += g.value_norm[h * n] / g.n_head_kv;
        layer.key_norm_median += median_of(of_head(g.key_norm)) / g.n_head_kv;
        layer.value_norm_median += median_of(of_head(g.value_norm)) / g.n_head_kv;
      }
    }
  }

  // Sums over sink tokens; mean_over_prompts() makes means of them.
  void add_norms_of_sinks(const std::vector<bool>& is_sink) {
    const auto add = [](std::optional<double>& sum, double x) { sum = sum.value_or(0) + x; };
    const size_t n = is_sink.size();
    for (size_t k = 0; k < n; ++k) {
      if (!is_sink[k]) continue;
      ++n_sink_token_;
      for (size_t l = 0; l < result_.layers.size(); ++l) {
        LayerCause& layer = result_.layers[l];
        if (layer.hidden) add(layer.norm_sinks, hidden_->records()[l].norm[k]);
        if (l == 0 || l > geometry_->layers().size()) continue;
        const measure::LayerGeometry& g = geometry_->layers()[l - 1];
        for (int h = 0; h < g.n_head_kv && !g.key_norm.empty(); ++h) {
          add(layer.key_norm_sinks, g.key_norm[h * n + k] / g.n_head_kv);
          add(layer.value_norm_sinks, g.value_norm[h * n + k] / g.n_head_kv);
        }
      }
    }
  }

  void add_mass(const std::vector<bool>& is_sink) {
    explain_run::SinkMass& mass = masses_.emplace_back();
    for (size_t k = 0; k < is_sink.size(); ++k)
      if (is_sink[k]) mass.positions.push_back(static_cast<int>(k));
    if (mass.positions.empty()) mass.positions.push_back(0);
    mass.on_sinks = explain_run::mass_on(mass.positions, *recorder_);
    mass.on_first = explain_run::mass_on({0}, *recorder_);
  }

  void mean_over_prompts(LayerCause& layer) const {
    for (const auto field : {&LayerCause::norm_first, &LayerCause::norm_median, &LayerCause::top_over_median, &LayerCause::spread, &LayerCause::key_norm_first,
                             &LayerCause::key_norm_median, &LayerCause::value_norm_first, &LayerCause::value_norm_median})
      layer.*field /= n_prompt_;
    for (const auto field : {&LayerCause::norm_sinks, &LayerCause::key_norm_sinks, &LayerCause::value_norm_sinks})
      if (layer.*field) *(layer.*field) /= static_cast<double>(n_sink_token_);
    if (layer.layer < 0 || layer.layer >= static_cast<int>(geometry_->layers().size())) return;
    const measure::LayerGeometry& g = geometry_->layers()[layer.layer];
    for (size_t h = 0; h < g.heads.size(); ++h) {
      const measure::HeadGeometry m = g.heads[h].mean();
      layer.heads.push_back({.head = static_cast<int>(h), .sinks = static_cast<double>(m.n_sink_prompt) / std::max(m.n_prompt, 1), .query_norm = m.query_norm,
                             .key_norm = m.sinks.norm, .other_key_norm = m.others.norm, .cos = m.sinks.cos, .other_cos = m.others.cos,
                             .cos_unrotated = m.sinks.cos_unrotated, .other_cos_unrotated = m.others.cos_unrotated, .logit = m.sinks.logit, .other_logit = m.others.logit,
                             .gap_by_norm = m.gap_by_norm(g.scale), .gap_by_angle = m.gap_by_angle(g.scale), .null_mass = m.null_mass, .output_share = m.output_share()});
      std::vector<HeadSink>& where = layer.heads.back().where;
      for (auto at = sinks_.lower_bound({layer.layer, static_cast<int>(h), 0}); at != sinks_.end() && at->first < std::tuple(layer.layer, static_cast<int>(h) + 1, 0); ++at) {
        where.push_back(at->second);
        where.back().share /= n_prompt_;
      }
      std::ranges::stable_sort(where, std::ranges::greater(), &HeadSink::share);
      if (where.size() > kMostWhere) where.resize(kMostWhere);
    }
  }

  void find_onset() {
    for (size_t l = 1; l < result_.layers.size(); ++l) {
      if (!result_.layers[l].hidden || !result_.layers[l - 1].hidden) continue;
      const double rise = result_.layers[l].norm_first - result_.layers[l - 1].norm_first;
      if (rise > result_.onset_rise) result_.onset_rise = rise, result_.onset = static_cast<int>(l) - 1;
    }
  }

  void list_outliers(const Model& model) {
    result_.outliers = outliers_.list();
    if (result_.outliers.size() > kMostListed) {
      result_.notes.push_back(fmt::format("{} numbers stand out, the {} largest are listed", result_.outliers.size(), kMostListed));
      result_.outliers.resize(kMostListed);
    }
    for (Outlier& o : result_.outliers) o.text = model.token_text(o.token);
    for (LayerCause& layer : result_.layers)
      if (layer.largest.token >= 0) layer.largest.text = model.token_text(layer.largest.token);
  }

  void name_tokens(const Model& model) {
    for (LayerCause& layer : result_.layers)
      for (HeadCause& head : layer.heads)
        for (HeadSink& s : head.where) s.text = model.token_text(s.token), s.special = model.is_control(s.token);
    for (SecondarySink& s : result_.secondary) s.text = model.token_text(s.token);
    if (n_secondary_ > result_.secondary.size())
      result_.notes.push_back(fmt::format("{} tokens come to point where the first one does, the first {} are listed", n_secondary_, kMostListed));
  }

  void find_missing() {
    const auto lacks = [&](const char* name, bool seen, const std::string& what) {
      if (!seen) result_.missing.push_back(fmt::format("{}: {}", name, what));
    };
    const std::span<const HiddenRecord> records = hidden_->records();
    const bool any = std::ranges::any_of(records, [](const HiddenRecord& r) { return !r.norm.empty(); });
    lacks("l_out", any, "no hidden states, onset and outliers");
    lacks("embd", !any || !records[0].norm.empty(), "no hidden state before the first layer");
    std::vector<int> without;
    for (int l = 1; any && l <= model_->n_layer; ++l)
      if (l >= static_cast<int>(records.size()) || records[l].norm.empty()) without.push_back(l - 1);
    if (!without.empty()) result_.missing.push_back(fmt::format("l_out of {} layers, from layer {} on: no hidden states there", without.size(), without[0]));
    for (const int layer : geometry_->skipped()) lacks("geometry", false, fmt::format("the heads of layer {} have masks of their own", layer));
    lacks("ffn_inp, sa_out or attn_residual", !any || hidden_->names_attention(), "it is not told what attention and what the MLP adds");
    if (model_->n_expert > 0) lacks("ffn_moe_topk", !experts_.layers().empty(), "no experts");
    for (const auto& layer : experts_.layers())
      if (layer.n_used > 0 && std::ranges::all_of(layer.largest_output, [](float x) { return x == 0; })) {
        lacks("ffn_moe_down", false, "not how large the experts' outputs are");
        break;
      }
  }

  const ExplainOptions& o_;
  const Progress& progress_;
  Explanation& result_;
  const ModelInfo* model_ = nullptr;
  const measure::Recorder* recorder_ = nullptr;
  report::ResultFiles files_;
  std::optional<explain_run::ArraysFile> arrays_;
  std::optional<measure::HiddenRecorder> hidden_;
  std::optional<measure::Geometry> geometry_;
  measure::ExpertRecorder experts_;
  int n_prompt_ = 0;
  size_t n_secondary_ = 0;
  explain_run::Outliers outliers_;
  explain_run::ExpertUses expert_uses_;
  std::map<std::tuple<int, int, int>, HeadSink> sinks_;  // by layer, head and position; share counts prompts
  std::vector<explain_run::SinkMass> masses_;        // [prompt]
  int64_t n_sink_token_ = 0;
};

}  // namespace

Explanation explain(const ExplainOptions& options, const Progress& progress) {
  if (options.perturb < 0 || options.perturb == 1 || options.perturb == 2)
    throw UsageError(fmt::format("--perturb {} tokens are too few; use 3 or more, or 0 for no such test", options.perturb));
  Explanation result;
  Explainer explainer(options, progress, result);
  result.profile = profile_run::run(options, progress, &explainer);
  return result;
}

}  // namespace sinkscope
