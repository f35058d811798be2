#include "sinkscope/profile.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>

#include "attention/kernels.h"
#include "io/sha256.h"
#include "measure/metrics.h"
#include "measure/recorder.h"
#include "profile/outputs.h"
#include "profile/prompts.h"
#include "profile/run.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

using profile_run::ArraysFile;
using profile_run::Companion;
using profile_run::Outputs;
using profile_run::Prompt;

constexpr int kMaxMapTokens = 4096;  // a whole map of one head is then 64 MiB

std::vector<std::pair<int, int>> maps_of(const ProfileOptions& o, const ModelInfo& model, int n_token) {
  std::vector<std::pair<int, int>> maps;
  for (const std::string& text : o.maps) {
    int layer = -1, head = -1;
    const char* end = text.data() + text.size();
    const auto [colon, error] = std::from_chars(text.data(), end, layer);
    const bool parsed = error == std::errc() && colon != end && *colon == ':' && std::from_chars(colon + 1, end, head).ptr == end;
    if (!parsed)
      throw UsageError(fmt::format("--maps '{}' is no layer and head; give two numbers as in --maps 5:1, once for each map", text));
    if (layer < 0 || layer >= model.n_layer || head < 0 || head >= model.n_head)
      throw UsageError(fmt::format("--maps {} is not in this model; use layers 0 to {} and heads 0 to {}", text,
                                   model.n_layer - 1, model.n_head - 1));
    maps.emplace_back(layer, head);
  }
  if (!maps.empty() && n_token > kMaxMapTokens)
    throw UsageError(fmt::format("--maps keeps whole maps of prompts up to {} tokens, the longest has {}; use a smaller --length "
                                 "or --context", kMaxMapTokens, n_token));
  return maps;
}

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

int longest(const std::vector<Prompt>& prompts) {
  size_t n = 0;
  for (const Prompt& p : prompts) n = std::max(n, p.size());
  return static_cast<int>(n);
}

int64_t token_count(const std::vector<Prompt>& prompts) {
  int64_t n = 0;
  for (const Prompt& p : prompts) n += static_cast<int64_t>(p.size());
  return n;
}

// Throws where a run has shown no attention at all.
void check_attention(const Session& session, const ModelInfo& model) {
  if (session.n_operation() > 0) return;
  const std::string reasons = fmt::format("{}", fmt::join(session.refused(), ", "));
  throw InputError(fmt::format(
      "'{}' ({}) has no attention that sinkscope can measure{}; give a model with softmax attention that llama.cpp runs "
      "with flash attention", model.file, model.architecture,
      reasons.empty() ? ": its graph holds no flash attention operation, as in recurrent models and Grok" : " (" + reasons + ")"));
}

// Runs prompts one after the other; `arrays` and `companion` may be null.
measure::Tally run_prompts(const std::vector<Prompt>& prompts, const std::string& what, const ProfileOptions& o, const ModelInfo& model, Session& session,
                           measure::Recorder& recorder, ArraysFile* arrays, Companion* companion, const Progress& progress) {
  measure::Tally tally(o.epsilon, o.min_rows);
  const int64_t all = token_count(prompts);
  int64_t before = 0;
  for (const Prompt& p : prompts) {
    recorder.start(static_cast<int>(p.size()));
    if (companion) companion->start(p);
    session.run(p, nullptr, [&](int n_done) {
      if (progress) progress(what, before + n_done, all);
    });
    tally.add(recorder, p);
    check_attention(session, model);
    if (arrays) arrays->add(recorder);
    if (companion) companion->finish(p);
    before += static_cast<int64_t>(p.size());
  }
  return tally;
}

// What was not measured, and why.
void note_coverage(const Session& session, Profile& p) {
  const std::string reasons = fmt::format("{}", fmt::join(session.refused(), ", "));
  std::vector<int> missing;
  for (const LayerProfile& layer : p.layers)
    if (!layer.measured) missing.push_back(layer.layer);
  if (!missing.empty())
    p.notes.push_back(fmt::format("layers {} have no attention that sinkscope can measure{}: they are left out",
                                  fmt::join(missing, ", "), reasons.empty() ? " (recurrent or of another kind)" : " (" + reasons + ")"));
}

std::vector<PromptTokens> named(const std::vector<Prompt>& prompts, const Model& model) {
  std::vector<PromptTokens> all;
  for (const Prompt& p : prompts) {
    PromptTokens& named = all.emplace_back();
    named.tokens = p;
    named.texts = model.token_texts(p);
    for (const int token : p) named.special.push_back(model.is_control(token));
  }
  return all;
}

void name_tokens(Profile& p, const Model& model) {
  const auto name = [&](auto& s) { s.text = model.token_text(s.token), s.special = model.is_control(s.token); };
  std::ranges::for_each(p.sinks, name);
  std::ranges::for_each(p.tokens, name);
}

}  // namespace

namespace profile_run {

RunInfo run_info(const PromptOptions& o, const std::vector<Prompt>& prompts, const Model& model, const Session& session, double seconds) {
  RunInfo run{.epsilon = o.epsilon, .min_rows = o.min_rows, .length = longest(prompts), .n_prompt = static_cast<int>(prompts.size()),
              .n_token = token_count(prompts), .bos = starts_with_bos(prompts, model) ? "first" : "none", .kv_type = o.kv_type, .isa = session.isa(),
              .threads = session.n_thread(), .batch = o.batch, .seed = o.seed, .seconds = seconds, .peak_rss_bytes = peak_rss_bytes()};
  run.shortest = static_cast<int>(std::ranges::min(prompts, {}, &Prompt::size).size());
  run.tokens_per_second = static_cast<double>(run.n_token) / seconds;
  return run;
}

Profile run(const ProfileOptions& o, const Progress& progress, Companion* companion) {
  check(o);
  for (const std::string& kind : o.baselines) one_of("--baseline", kind, {"random", "repeat"});
  if (!o.maps.empty() && o.arrays.empty() && o.report.empty()) throw UsageError("--maps needs a file to go to; give --arrays FILE or --report FILE too");
  Outputs outputs(o, companion ? companion->files() : std::vector<io::Place>());
  const Model model(o.model, o.gpu_layers);
  if (model.info().has_cross_attention)
    throw InputError(fmt::format("'{}' ({}) is an encoder and a decoder, whose attention llama.cpp computes in ways that do "
                                 "not show who attends to whom; give a decoder, an encoder or a diffusion model",
                                 model.info().file, model.info().architecture));
  Profile p;
  const std::vector<Prompt> prompts = profile_run::read_prompts(o, model, p.notes);
  std::vector<std::pair<std::string, std::vector<Prompt>>> controls;
  for (const std::string& kind : o.baselines) controls.emplace_back(kind, profile_run::control_prompts(kind, prompts, model, o.seed));

  p.model = model.info();
  const int n_token = longest(prompts);
  p.maps = maps_of(o, p.model, n_token);
  Session session(model, {.n_context = n_token, .n_batch = o.batch, .n_thread = o.threads, .kv_type = o.kv_type, .isa = o.isa,
                          .attention = Attention::sinkscope, .all_logits = companion != nullptr, .tensors = companion != nullptr, .blas = !o.no_blas});
  p.notes.insert(p.notes.end(), session.notes().begin(), session.notes().end());
  if (n_token < o.min_rows)
    p.notes.push_back(fmt::format("the longest prompt has {} tokens, and only positions that {} rows see (--min-rows) are listed as "
                                  "sinks: there are none", n_token, o.min_rows));
  if (!o.tokens.empty() && o.bos != "auto") p.notes.push_back("--bos does not change prompts of --tokens, which are used as they are");
  if (n_token > p.model.n_context_train)
    p.notes.push_back(fmt::format("prompts of {} tokens are longer than the {} that the model was trained on", n_token, p.model.n_context_train));

  outputs.open_arrays(o, {static_cast<int>(prompts.size()), p.model.n_layer, p.model.n_head, n_token}, p.maps, p.model.name);

  const attention::Kernels& kernels = attention::kernels(o.isa);
  measure::Recorder recorder(kernels, outputs.keep(p.maps));
  std::vector<Probe*> probes = {&recorder};
  if (companion) companion->join({p.model, static_cast<int>(prompts.size()), n_token}, session, recorder, probes);
  session.watch(std::move(probes));
  const auto start = std::chrono::steady_clock::now();
  const measure::Tally tally = run_prompts(prompts, "prompts", o, p.model, session, recorder, outputs.arrays(), companion, progress);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  p.layers = tally.layers();
  p.layers.resize(p.model.n_layer);
  for (int l = 0; l < p.model.n_layer; ++l) p.layers[l].layer = l;
  note_coverage(session, p);
  p.sink_rate = tally.sink_rate(o.seed);
  p.first = tally.first_share(o.seed);
  p.mass = tally.mass();
  p.strongest_is_first = tally.strongest_is_first();
  p.strongest_is_first_ci95 = tally.strongest_is_first_ci95(o.seed);
  p.learned_sink = tally.learned_sink();
  if (p.model.attention == "sigmoid")
    p.notes.push_back(fmt::format("attention is sigmoid: a row's weights sum to {:.3f} on average, not to 1, so that alphas, sink rates and shares are not those of softmax", p.mass));
  p.sinks = tally.sinks(o.seed);
  p.tokens = tally.sink_tokens();
  name_tokens(p, model);
  p.prompts = named(prompts, model);
  p.arrays = std::filesystem::path(o.arrays).filename().string();

  measure::Recorder control_recorder(kernels, {.maps = {}, .all_first_mass = false});
  session.watch({&control_recorder});
  if (companion) companion->leave(session);
  for (const auto& [kind, made] : controls)
    p.baselines.push_back({kind, run_prompts(made, kind, o, p.model, session, control_recorder, nullptr, nullptr, progress).sink_rate(o.seed)});

  p.sha256 = io::sha256_of_file(p.model.file);
  p.run = run_info(o, prompts, model, session, seconds);
  if (companion) companion->conclude(model, session, prompts, p);
  outputs.commit(p, companion);
  return p;
}

}  // namespace profile_run

Profile profile(const ProfileOptions& options, const Progress& progress) { return profile_run::run(options, progress, nullptr); }

int Profile::n_head() const {
  size_t n = 0;
  for (const LayerProfile& layer : layers) n += layer.heads.size();
  return static_cast<int>(n);
}

std::string Profile::answer() const {
  // The first position, unless it is none and another one is.
  const Sink* sink = sinks.empty() ? nullptr : &*std::max_element(sinks.begin(), sinks.end(), [](const Sink& a, const Sink& b) {
                                         return a.sink_rate < b.sink_rate;
                                       });
  const bool at_first = measure::says_something(sink_rate, 0) || !sink;
  const int k = at_first ? 0 : sink->position;
  if (at_first) sink = !sinks.empty() && sinks[0].position == 0 ? &sinks[0] : nullptr;
  const double rate = sink_rate.by_position[k], null = sink_rate.null_by_position[k];
  const std::string verb = rate > measure::kSinkPositionPercent ? "sinks on" : "does not sink on";
  const std::string place = at_first ? "its first token" : fmt::format("position {}, not on its first token", k);
  const std::string text = sink && sink->token_share == 1 ? " `" + sink->text + "`" : "";
  std::string answer = fmt::format("{} {} {}{}: {:.0f} % of {} heads give it more than {:g} of their attention (on average {:.3f}; uniform "
                                   "attention would give {:.3f})", model.name, verb, place, text, rate, n_head(), run.epsilon,
                                   sink_rate.alpha_by_position[k], sink_rate.uniform_alpha_by_position[k]);
  if (null > 0 && null >= rate / 2)
    answer = fmt::format("{}: prompts of {} tokens with epsilon {:g} say nothing about sinks, uniform attention alone would give a rate of "
                         "{:.0f} % (measured: {:.0f} %)", model.name, run.length, run.epsilon, null, rate);
  return answer;
}

}  // namespace sinkscope
