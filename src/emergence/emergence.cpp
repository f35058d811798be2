#include "sinkscope/emergence.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <tuple>

#include <fmt/format.h>

#include "emergence/plot.h"
#include "io/gnuplot.h"
#include "io/places.h"
#include "measure/hidden.h"
#include "measure/onset.h"
#include "profile/run.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

using profile_run::Prompt;

// How long the first token's hidden states are, prompt by prompt.
class NormRatio : public profile_run::Companion {
 public:
  std::vector<std::pair<const char*, std::string>> files() const override { return {}; }
  void join(const Size& size, Session& session, const measure::Recorder&, std::vector<Probe*>&) override {
    n_prompt_ = size.n_prompt;
    hidden_.emplace(session.n_thread());
    session.hook_tensors({&*hidden_});
  }
  void leave(Session& session) override { session.hook_tensors({}); }
  void start(const Prompt& prompt) override { hidden_->start(static_cast<int>(prompt.size())); }
  void finish(const Prompt&) override {
    ratio.resize(hidden_->records().size());
    for (size_t l = 0; l < ratio.size(); ++l) {
      std::vector<float> others = hidden_->records()[l].norm;
      if (others.size() < 2) continue;
      const float first = others[0];
      const auto middle = others.begin() + 1 + static_cast<long>(others.size() - 2) / 2;
      std::nth_element(others.begin() + 1, middle, others.end());
      ratio[l] += first / std::max(*middle, 1e-30f) / static_cast<float>(n_prompt_);
    }
  }
  void conclude(const Model&, Session&, const std::vector<Prompt>&, const Profile&) override {}
  session::Json json() const override { return nullptr; }
  std::vector<AtomicFile*> written() override { return {}; }

  std::vector<double> ratio;  // [n_layer + 1], mean over prompts

 private:
  int n_prompt_ = 0;
  std::optional<measure::HiddenRecorder> hidden_;
};

struct Checkpoint {
  std::string file;
  int64_t step = 0;
};

std::vector<Checkpoint> checkpoints_of(const EmergenceOptions& o) {
  if (o.checkpoints.size() < 2) throw UsageError(fmt::format("{} checkpoints make no curve; give two GGUF files or more", o.checkpoints.size()));
  if (!o.steps.empty() && o.steps.size() != o.checkpoints.size()) throw UsageError(fmt::format("--steps has {} numbers for {} checkpoints; give one for each", o.steps.size(), o.checkpoints.size()));
  std::vector<Checkpoint> list;
  for (size_t i = 0; i < o.checkpoints.size(); ++i) {
    list.push_back({o.checkpoints[i], o.steps.empty() ? step_in_name(o.checkpoints[i]) : o.steps[i]});
    if (list.back().step < 0)
      throw UsageError(o.steps.empty() ? fmt::format("'{}' has no number in its name that could be its step; give --steps", o.checkpoints[i]) : fmt::format("--steps {} is no step; use 0 or more", o.steps[i]));
  }
  std::ranges::stable_sort(list, {}, &Checkpoint::step);
  if (const auto same = std::ranges::adjacent_find(list, {}, &Checkpoint::step); same != list.end())
    throw UsageError(fmt::format("'{}' and '{}' are both of step {}; give --steps, another one for each", same->file, std::next(same)->file, same->step));
  return list;
}

EmergencePoint point_of(const Checkpoint& c, const Profile& p, std::vector<double> norm_ratio) {
  EmergencePoint point{.file = c.file, .sha256 = p.sha256, .step = c.step, .sink_rate = p.sink_rate.first, .sink_null = p.sink_rate.null, .alpha = p.sink_rate.alpha_by_position[0],
                       .alpha_null = p.sink_rate.uniform_alpha_by_position[0], .strongest = {}, .mass = p.mass, .norm_ratio = std::move(norm_ratio)};
  for (const LayerProfile& layer : p.layers)
    for (const HeadProfile& head : layer.heads)
      if (head.alpha_first > point.strongest.alpha) point.strongest = {layer.layer, head.head, head.alpha_first};
  return point;
}

void check_same(const ModelInfo& first, const ModelInfo& other) {
  const auto shape = [](const ModelInfo& m) { return std::tuple(m.architecture, m.n_layer, m.n_head, m.n_head_kv, m.n_embd, m.n_vocab); };
  if (shape(first) != shape(other)) throw InputError(fmt::format("'{}' is not of the same model as '{}'; give checkpoints of one", other.file, first.file));
}

}  // namespace

int64_t step_in_name(const std::string& file) {
  const std::string name = std::filesystem::path(file).stem();
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  int64_t step = -1;
  for (size_t at = 0; at < name.size();) {
    if (!is_digit(name[at])) {
      ++at;
      continue;
    }
    size_t word = at;  // "step1000" and "step-1000" are the same
    while (word > 0 && (name[word - 1] == '-' || name[word - 1] == '_' || name[word - 1] == '.')) --word;
    const bool named = name.substr(0, word).ends_with("step");
    int64_t number = -1;
    at = std::from_chars(name.data() + at, name.data() + name.size(), number).ptr - name.data();
    step = number;
    if (named) break;
  }
  return step;
}

Emergence emergence(const EmergenceOptions& o, const Progress& progress) {
  const std::vector<Checkpoint> checkpoints = checkpoints_of(o);
  profile_run::check(o);
  if (std::ranges::find(o.texts, "-") != o.texts.end()) throw UsageError("standard input can be read once, and each checkpoint reads the texts; give files");
  std::vector<std::string> inputs = o.checkpoints;
  inputs.insert(inputs.end(), o.texts.begin(), o.texts.end());
  inputs.push_back(o.tokens);
  io::check_places(inputs, {{"--json", o.json}, {"--plot", o.plot}});
  if (!o.plot.empty()) io::check_gnuplot();
  std::optional<AtomicFile> json, plot;
  if (!o.json.empty()) json.emplace(o.json);
  if (!o.plot.empty()) plot.emplace(o.plot);

  Emergence e;
  std::vector<double> alpha, uniform;
  for (const Checkpoint& c : checkpoints) {
    ProfileOptions of_one;
    static_cast<PromptOptions&>(of_one) = o;
    of_one.model = c.file;
    NormRatio norms;
    const Profile p = profile_run::run(of_one, [&](const std::string&, int64_t done, int64_t total) {
      if (progress) progress(fmt::format("step {}", c.step), done, total);
    }, &norms);
    if (!e.points.empty()) check_same(e.model, p.model);
    e.model = p.model, e.run = p.run;
    e.points.push_back(point_of(c, p, norms.ratio));
    alpha.push_back(e.points.back().alpha), uniform.push_back(e.points.back().alpha_null);
    for (const std::string& note : p.notes)
      if (std::ranges::find(e.notes, note) == e.notes.end()) e.notes.push_back(note);
  }
  e.onset = measure::onset(alpha, uniform);
  if (checkpoints[0].step > 0)
    e.notes.push_back(fmt::format("the first checkpoint is of step {}, not of an untrained model: where sinks set in is said against it, and sinks that it has already are not seen to come", checkpoints[0].step));
  std::vector<AtomicFile*> files;
  if (json) json->write(to_json(e)), files.push_back(&*json);
  if (plot) plot->write(emergence_run::to_svg(e)), files.push_back(&*plot);
  commit_together(files);
  return e;
}

std::string Emergence::answer() const {
  const EmergencePoint &last = points.back(), &at = points[onset < 0 ? points.size() - 1 : static_cast<size_t>(onset)];
  if (onset < 0)
    return fmt::format("no sink sets in up to step {}: attention to the first token ends at {:.3f} (at the start {:.3f}, uniform {:.3f})", last.step, last.alpha, points[0].alpha, last.alpha_null);
  return fmt::format("sinks set in at step {}: attention to the first token is {:.3f} from there on or more than {:g} times the start ({:.3f}) and uniform attention ({:.3f}), and ends at {:.3f} with {:.1f} % of heads "
                     "that sink on it", at.step, at.alpha, measure::kOnsetRatio, points[0].alpha, at.alpha_null, last.alpha, last.sink_rate);
}

}  // namespace sinkscope
