#include "sinkscope/ablate.h"

#include <algorithm>
#include <chrono>
#include <random>

#include <fmt/format.h>

#include "attention/kernels.h"
#include "attention/team.h"
#include "intervene/attention.h"
#include "intervene/control.h"
#include "intervene/hidden.h"
#include "intervene/input.h"
#include "io/sha256.h"
#include "measure/metrics.h"
#include "profile/outputs.h"
#include "profile/prompts.h"
#include "report/result_files.h"
#include "session/predictions.h"
#include "session/text.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

using intervene::Edit;
using profile_run::Prompt;

// What a model predicts of a prompt: logarithms of probabilities, [n_token, n_vocab].
struct Predictions {
  std::vector<std::vector<float>> rows;
  std::vector<int> top;
};

Predictions predictions_of(const std::vector<float>& logits, int n_vocab, int n_thread) {
  const auto n = static_cast<int>(logits.size() / n_vocab);
  Predictions p{.rows = std::vector<std::vector<float>>(n), .top = std::vector<int>(n)};
  attention::run_tasks(n, n_thread, [&](int i, int) { p.top[i] = session::log_probabilities(logits.data() + static_cast<size_t>(i) * n_vocab, n_vocab, p.rows[i]); });
  return p;
}

// The model as it is, or with some edits: what becomes of each prompt.
class Variant {
 public:
  Variant(std::vector<Edit> edits, const intervene::Shape& shape, const intervene::GraphNames& names, const PromptOptions& o)
      : edits_(std::move(edits)), attention_(edits_, shape, attention::kernels(o.isa), o.seed), hidden_(edits_, names, shape.n_layer, session::named(o.model)),
        tally_(o.epsilon, o.min_rows) {}

  void learn(Session& session, const Prompt& prompt) {
    if (!hidden_.any()) return;
    session.hook_tensors({&hidden_});
    hidden_.start(/*learns=*/true);
    session.run(prompt);
    session.hook_tensors({});
  }

  // Adds what changed against `plain`, the model as it is on this prompt.
  void run(const ModelInfo& model, Session& session, const Prompt& prompt, const Predictions& plain, measure::Recorder& recorder) {
    const intervene::EditedPrompt edited = intervene::apply(edits_, prompt, model.bos);
    session.hook_attention({&attention_});
    session.hook_tensors(hidden_.any() ? std::vector<TensorHook*>{&hidden_} : std::vector<TensorHook*>());
    recorder.start(static_cast<int>(edited.tokens.size()));
    hidden_.start(/*learns=*/false);
    std::vector<float> logits;
    session.run(edited.tokens, &logits);
    session.hook_attention({});
    session.hook_tensors({});
    tally_.add(recorder, edited.tokens);
    compare(prompt, plain, edited, predictions_of(logits, model.n_vocab, session.n_thread()), session.n_thread());
  }

  Change change(uint32_t seed) const {
    const double n = std::max<double>(static_cast<double>(n_), 1);
    Change c{.loss = loss_ / n, .loss_change = (loss_ - plain_loss_) / n, .loss_change_ci95 = measure::bootstrap_ci95(loss_changes_, seed), .kl = kl_ / n,
             .same_top = 100 * static_cast<double>(n_same_) / n, .sink_rate = tally_.sink_rate(seed).first};
    return c;
  }

 private:
  // Over tokens whose next one is the same in both.
  void compare(const Prompt& prompt, const Predictions& plain, const intervene::EditedPrompt& edited, const Predictions& now, int n_thread) {
    const int n_token = static_cast<int>(edited.tokens.size());
    const auto is_compared = [&](int i) { return i + 1 < n_token && edited.origin[i] >= 0 && edited.origin[i + 1] == edited.origin[i] + 1; };
    std::vector<double> kl(n_token);
    attention::run_tasks(n_token, n_thread, [&](int i, int) {
      if (is_compared(i)) kl[i] = session::divergence(plain.rows[edited.origin[i]], now.rows[i]);
    });
    double change = 0;
    int n = 0;
    for (int i = 0; i < n_token; ++i) {
      if (!is_compared(i)) continue;
      const int was = edited.origin[i], next = prompt[was + 1];
      const double before = -plain.rows[was][next], after = -now.rows[i][next];
      loss_ += after, plain_loss_ += before, change += after - before;
      kl_ += kl[i];
      n_same_ += plain.top[was] == now.top[i];
      ++n;
    }
    if (n == 0) return;
    n_ += n;
    loss_changes_.push_back(static_cast<float>(change / n));
  }

  std::vector<Edit> edits_;
  intervene::AttentionEdits attention_;
  intervene::HiddenEdits hidden_;
  measure::Tally tally_;
  int64_t n_ = 0, n_same_ = 0;
  double loss_ = 0, plain_loss_ = 0, kl_ = 0;
  std::vector<float> loss_changes_;  // by prompt
};

// An edit, and its controls.
struct Trial {
  std::string spec, control_of;
  std::vector<std::unique_ptr<Variant>> variants;  // the edit first
  bool learns = false;
};

Change mean_of(std::span<const std::unique_ptr<Variant>> variants, uint32_t seed) {
  Change mean;
  const double n = static_cast<double>(variants.size());
  for (const auto& v : variants) {
    const Change c = v->change(seed);
    for (const auto field : {&Change::loss, &Change::loss_change, &Change::kl, &Change::same_top, &Change::sink_rate}) mean.*field += c.*field / n;
    if (!c.loss_change_ci95) continue;
    if (!mean.loss_change_ci95) mean.loss_change_ci95.emplace();
    mean.loss_change_ci95->low += c.loss_change_ci95->low / n;
    mean.loss_change_ci95->high += c.loss_change_ci95->high / n;
  }
  return mean;
}

std::vector<Trial> trials_of(const AblateOptions& o, const std::vector<std::vector<Edit>>& parsed, const intervene::Shape& shape,
                             const intervene::GraphNames& names) {
  std::vector<Trial> trials;
  for (size_t i = 0; i < parsed.size(); ++i) {
    std::mt19937 random(o.seed + static_cast<uint32_t>(i));
    Trial& trial = trials.emplace_back();
    trial.spec = o.edits[i];
    trial.variants.push_back(std::make_unique<Variant>(parsed[i], shape, names, o));
    trial.learns = std::ranges::any_of(parsed[i], [](const Edit& e) { return e.kind == Edit::Kind::mean; });
    for (int c = 0; c < o.controls; ++c) {
      std::optional<intervene::Control> control = intervene::control_of(parsed[i], shape, random);
      if (!control) break;
      trial.control_of = control->what;
      PromptOptions with_seed = o;
      with_seed.seed = o.seed + static_cast<uint32_t>(c);
      trial.variants.push_back(std::make_unique<Variant>(std::move(control->edits), shape, names, with_seed));
    }
  }
  return trials;
}

}  // namespace

Ablations ablate(const AblateOptions& o, const Progress& progress) {
  profile_run::check(o);
  if (o.edits.empty()) throw UsageError("there is nothing to change; give --edit SPEC, as in --edit mask:positions=0");
  if (o.controls < 0) throw UsageError(fmt::format("--controls {} is too small; use 0 or more", o.controls));
  std::vector<std::vector<Edit>> parsed;
  for (const std::string& spec : o.edits) parsed.push_back(intervene::parse(spec));
  report::ResultFiles files({o.json, o.report, o.svg});
  profile_run::check_places(o, files.places());
  files.open();

  const Model model(o.model, o.gpu_layers);
  Ablations result{.model = model.info(), .controls = o.controls};
  const ModelInfo& info = result.model;
  const std::vector<Prompt> prompts = profile_run::read_prompts(o, model, result.notes);
  const auto [shortest, longest] = std::ranges::minmax_element(prompts, {}, &Prompt::size);
  const intervene::Shape shape{.n_layer = info.n_layer, .n_head = info.n_head, .n_embd = info.n_embd, .n_expert = info.n_expert, .n_vocab = info.n_vocab,
                               .n_token = static_cast<int>(shortest->size())};
  int n_more = 0;
  bool whole = false;  // an edit must see all queries of a prompt at once
  for (const std::vector<Edit>& edits : parsed) {
    intervene::check(edits, shape);
    for (const Prompt& p : prompts) intervene::apply(edits, p, info.bos);  // what cannot be is refused before anything runs
    int n_copy = 0;
    for (const Edit& e : edits) {
      n_copy += e.count - 1;
      whole |= e.kind == Edit::Kind::act;
    }
    n_more = std::max(n_more, n_copy);
  }
  const int n_token = static_cast<int>(longest->size()) + n_more;
  Session session(model, {.n_context = n_token, .n_batch = whole ? n_token : o.batch, .n_thread = o.threads, .kv_type = o.kv_type, .isa = o.isa,
                          .all_logits = true, .tensors = true, .blas = !o.no_blas});
  if (!session.has_memory()) throw InputError(fmt::format("'{}' does not predict the next token, so that it has no loss here; give a model that does", info.file));
  result.notes.insert(result.notes.end(), session.notes().begin(), session.notes().end());

  intervene::GraphNames names;
  session.hook_tensors({&names});
  session.run(std::span(*shortest).first(2));
  session.hook_tensors({});
  std::vector<Trial> trials = trials_of(o, parsed, shape, names);
  measure::Recorder recorder(attention::kernels(o.isa), {.maps = {}, .all_first_mass = false});
  const auto start = std::chrono::steady_clock::now();
  int64_t done = 0, all = 0;
  for (const Prompt& p : prompts)
    for (const Trial& t : trials) all += static_cast<int64_t>(p.size() * t.variants.size() * (t.learns ? 2 : 1));
  const auto step = [&](const Prompt& p) {
    if (progress) progress("tokens", done += static_cast<int64_t>(p.size()), all);
  };
  for (Trial& t : trials)
    for (const auto& variant : t.variants)
      for (const Prompt& p : prompts)
        if (t.learns) variant->learn(session, p), step(p);

  session.watch({&recorder});
  measure::Tally plain_tally(o.epsilon, o.min_rows);
  double loss = 0;
  int64_t n = 0;
  for (const Prompt& p : prompts) {
    std::vector<float> logits;
    recorder.start(static_cast<int>(p.size()));
    session.run(p, &logits);
    if (session.n_operation() == 0)
      throw InputError(fmt::format("'{}' ({}) has no attention that sinkscope can measure; give a model with softmax attention that llama.cpp runs with flash attention",
                                   info.file, info.architecture));
    plain_tally.add(recorder, p);
    const Predictions plain = predictions_of(logits, info.n_vocab, session.n_thread());
    for (size_t i = 0; i + 1 < p.size(); ++i) loss -= plain.rows[i][p[i + 1]], ++n;
    for (Trial& t : trials)
      for (const auto& variant : t.variants) variant->run(info, session, p, plain, recorder), step(p);
  }
  result.loss = loss / static_cast<double>(n);
  result.sink_rate = plain_tally.sink_rate(o.seed).first;
  for (const Trial& t : trials) {
    Ablation& a = result.edits.emplace_back();
    a.edit = t.spec;
    a.change = t.variants[0]->change(o.seed);
    if (t.variants.size() > 1) a.control = mean_of(std::span(t.variants).subspan(1), o.seed);
    a.control_of = t.control_of;
  }
  result.sha256 = io::sha256_of_file(info.file);
  result.run = profile_run::run_info(o, prompts, model, session, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  files.write(info.name, to_json(result));
  commit_together(files.written());
  return result;
}

}  // namespace sinkscope
