#include "sinkscope/denoise.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <fmt/format.h>

#include "attention/kernels.h"
#include "io/sha256.h"
#include "measure/metrics.h"
#include "measure/recorder.h"
#include "profile/outputs.h"
#include "profile/prompts.h"
#include "report/result_files.h"
#include "session/predictions.h"
#include "session/sampler.h"
#include "session/text.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

void check(const DenoiseOptions& o) {
  const auto at_least = [](const char* option, int value, int least) {
    if (value < least) throw UsageError(fmt::format("{} {} is too small; use {} or more", option, value, least));
  };
  at_least("--length", o.length, 1);
  at_least("--block", o.block, 1);
  at_least("--steps", o.steps, 1);
  at_least("--threads", o.threads, 0);
  if (o.mask < -1) throw UsageError(fmt::format("--mask {} is no token; give an id of the vocabulary", o.mask));
  if (!(o.temperature >= 0 && o.temperature <= 100)) throw UsageError(fmt::format("--temperature {} is not between 0 and 100; give a number that is", o.temperature));
  if (!(o.epsilon > 0)) throw UsageError(fmt::format("--epsilon {} is not above 0; 3 is usual", o.epsilon));
  profile_run::one_of("--remasking", o.remasking, {"confidence", "random"});
  profile_run::one_of("--bos", o.bos, {"auto", "always", "never"});
  if (!o.text.empty() && !o.tokens.empty()) throw UsageError("both a text and --tokens are given; give one of them");
  attention::kernels(o.isa);
}

class Denoiser {
 public:
  Denoiser(const DenoiseOptions& o, const Model& model, int mask, Denoised& result)
      : o_(o), model_(model), mask_(mask), result_(result), sampler_({.temperature = o.temperature, .top_p = 1, .min_p = 0, .seed = o.seed}), random_(o.seed),
        recorder_(attention::kernels(o.isa), {.maps = {}, .all_first_mass = false}) {}

  void run(const Progress& progress) {
    std::vector<int>& tokens = result_.tokens;
    tokens.resize(result_.n_prompt + o_.length, mask_);
    Session session(model_, {.n_context = static_cast<int>(tokens.size()), .n_batch = static_cast<int>(tokens.size()), .n_thread = o_.threads, .isa = o_.isa, .all_logits = true,
                             .blas = !o_.no_blas});
    result_.notes.insert(result_.notes.end(), session.notes().begin(), session.notes().end());
    session.watch({&recorder_});
    result_.threads = session.n_thread();
    const int n_block = (o_.length + o_.block - 1) / o_.block;
    for (int b = 0; b < n_block; ++b) {
      const int begin = result_.n_prompt + b * o_.block, end = std::min(begin + o_.block, result_.n_prompt + o_.length);
      // Steps are shared out over blocks, and a block's masks over its steps, the first ones taking what is left over.
      const int n_step = std::clamp(o_.steps / n_block + (b < o_.steps % n_block ? 1 : 0), 1, end - begin);
      for (int s = 0; s < n_step; ++s) {
        const int left = static_cast<int>(std::count(tokens.begin() + begin, tokens.begin() + end, mask_));
        step(session, begin, end, (left + n_step - s - 1) / (n_step - s));
        if (progress) progress("masks", o_.length - std::count(tokens.begin() + result_.n_prompt, tokens.end(), mask_), o_.length);
      }
    }
    if (const int n = static_cast<int>(result_.steps.size()); n != o_.steps)
      result_.notes.push_back(fmt::format("{} steps were taken, not {}: each block takes at least one, and no more than it has masks", n, o_.steps));
  }

 private:
  struct Guess {
    int position, token;
    double confidence;
  };

  // One run over the whole text; the surest masks of [begin, end) become words.
  void step(Session& session, int begin, int end, int n_word) {
    std::vector<int>& tokens = result_.tokens;
    const int n_vocab = model_.info().n_vocab, n_token = static_cast<int>(tokens.size()), index = static_cast<int>(result_.steps.size());
    recorder_.start(n_token);
    std::vector<float> logits, row;
    session.run(tokens, &logits);
    if (session.n_operation() == 0) throw InputError(fmt::format("'{}' has no attention that sinkscope can measure", model_.info().file));
    look_at_sinks(index);
    std::vector<Guess> guesses;
    for (int i = begin; i < end; ++i) {
      if (tokens[i] != mask_) continue;
      // Dream and RND1 predict the next token as other models do, LLaDA the one at the position itself.
      const int from = std::max(i - (model_.info().shifts_logits ? 1 : 0), 0);
      float* at = logits.data() + static_cast<size_t>(from) * n_vocab;
      at[mask_] = -INFINITY;
      const int token = sampler_.pick({at, static_cast<size_t>(n_vocab)}, static_cast<int64_t>(index) * n_token + i);
      session::log_probabilities(at, n_vocab, row);
      guesses.push_back({i, token, o_.remasking == "random" ? std::uniform_real_distribution<double>()(random_) : row[token]});
    }
    std::ranges::stable_sort(guesses, std::ranges::greater(), &Guess::confidence);
    guesses.resize(std::min<size_t>(guesses.size(), n_word));
    for (const Guess& g : guesses) tokens[g.position] = g.token;
  }

  void look_at_sinks(int index) {
    const std::vector<int>& tokens = result_.tokens;
    const int n = static_cast<int>(tokens.size());
    DenoiseStep step{.step = index, .n_masked = static_cast<int>(std::count(tokens.begin() + result_.n_prompt, tokens.end(), mask_))};
    std::vector<int> n_sink(n);
    std::vector<double> column(n);
    int n_head = 0;
    double places = 0, counted = 0;
    for (const measure::LayerRecord& layer : recorder_.layers())
      for (int h = 0; h < layer.n_head; ++h, ++n_head) {
        const float* sums = layer.column_sum.data() + static_cast<size_t>(h) * n;
        double all = 0;
        for (int k = 0; k < n; ++k) all += sums[k];
        bool sinks = false;
        for (int k = 0; k < n; ++k) {
          column[k] += sums[k];
          if (sums[k] - (all - sums[k]) / std::max(n - 1, 1) <= o_.epsilon) continue;
          ++n_sink[k], ++counted, places += k;
          sinks = true;
        }
        step.n_sink_head += sinks;
      }
    result_.n_head = n_head;
    step.centre = counted > 0 ? places / counted : 0;
    for (int k = 0; k < n; ++k)
      if (100.0 * n_sink[k] > measure::kSinkPositionPercent * n_head)
        step.sinks.push_back({.position = k, .token = tokens[k], .text = model_.token_text(tokens[k]), .sink_rate = 100.0 * n_sink[k] / n_head, .column_sum = column[k] / n_head});
    result_.steps.push_back(std::move(step));
  }

  const DenoiseOptions& o_;
  const Model& model_;
  int mask_;
  Denoised& result_;
  session::Sampler sampler_;
  std::mt19937 random_;
  measure::Recorder recorder_;
};

}  // namespace

Denoised denoise(const DenoiseOptions& o, const Progress& progress) {
  check(o);
  PromptOptions prompt;  // of the commands that run prompts: the same files, the same sentences
  prompt.model = o.model;
  prompt.tokens = o.tokens;
  if (!o.text.empty()) prompt.texts = {o.text};
  prompt.length = 0;
  report::ResultFiles files({o.json, o.report, ""});
  profile_run::check_places(prompt, files.places());
  files.open();
  const Model model(o.model);
  if (!model.info().is_diffusion)
    throw InputError(fmt::format("'{}' ({}) is no diffusion model: it makes one token after the other; use sinkscope stream", model.info().file, model.info().architecture));
  Denoised result{.model = model.info(), .options = o};
  const int mask = o.mask >= 0 ? o.mask : model.info().mask;
  if (mask < 0 || mask >= model.info().n_vocab)
    throw InputError(fmt::format("'{}' names no mask token among its {}; give one with --mask TOKEN", model.info().file, model.info().n_vocab));
  result.mask = mask;
  if (!o.tokens.empty()) {
    const std::vector<profile_run::Prompt> prompts = profile_run::read_prompts(prompt, model, result.notes);
    if (prompts.size() != 1) throw InputError(fmt::format("'{}' holds {} prompts, denoise goes on from one; give an array of one array", o.tokens, prompts.size()));
    result.tokens = prompts[0];
  } else if (!o.text.empty()) {
    result.tokens = model.tokenize(session::read_text(o.text), /*marks=*/true);
  }
  if (o.tokens.empty() && session::wants_bos(o.bos, model.info())) result.tokens.insert(result.tokens.begin(), model.info().bos);
  result.n_prompt = static_cast<int>(result.tokens.size());
  Denoiser(o, model, mask, result).run(progress);
  for (int i = result.n_prompt; i < static_cast<int>(result.tokens.size()); ++i) result.text += model.token_text(result.tokens[i]);
  result.sha256 = io::sha256_of_file(model.info().file);
  files.write(result.model.name, to_json(result));
  commit_together(files.written());
  return result;
}

}  // namespace sinkscope
