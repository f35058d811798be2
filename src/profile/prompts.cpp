#include "profile/prompts.h"

#include <algorithm>
#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "attention/kernels.h"
#include "measure/metrics.h"
#include "session/text.h"
#include "sinkscope/error.h"

namespace sinkscope::profile_run {
namespace {

constexpr int kMaxThreads = 512;  // ggml's own limit

using session::named, session::read_file, session::read_text, session::wants_bos;

std::string counted(size_t n, const char* what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); }

// At most n of them, evenly over the whole.
std::vector<Prompt> thinned(std::vector<Prompt> prompts, int n) {
  if (static_cast<int>(prompts.size()) <= n) return prompts;
  std::vector<Prompt> some;
  for (int i = 0; i < n; ++i) some.push_back(std::move(prompts[static_cast<size_t>(i) * prompts.size() / n]));
  return some;
}

std::vector<Prompt> cut_texts(const PromptOptions& options, const Model& model, std::vector<std::string>& notes) {
  const bool bos = wants_bos(options.bos, model.info()), closed = model.info().closing >= 0 && options.bos != "never";
  const size_t n_mark = bos + closed;
  if (options.length > 0 && static_cast<size_t>(options.length) <= n_mark)
    throw UsageError(fmt::format("--length {} has no room for text beside what the tokenizer puts around it; use {} or more", options.length, n_mark + 1));
  std::vector<Prompt> prompts;
  size_t n_token = 0;
  for (const std::string& path : options.texts) {
    const std::vector<int> tokens = model.tokenize(read_text(path));
    n_token += tokens.size();
    const size_t step = options.length > 0 ? options.length - n_mark : tokens.size();
    if (options.length == 0 && tokens.size() + n_mark < 2)
      throw InputError(fmt::format("{} is too short: {} in it, a prompt needs at least 2; give more text",
                                   named(path), counted(tokens.size(), "token")));
    if (tokens.size() < step)
      notes.push_back(fmt::format("{} gives no prompt: it has {}, --length {} needs {}", named(path), counted(tokens.size(), "token"),
                                  options.length, step));
    for (size_t at = 0; step > 0 && at + step <= tokens.size(); at += step) {
      Prompt prompt;
      if (bos) prompt.push_back(model.info().bos);
      prompt.insert(prompt.end(), tokens.begin() + at, tokens.begin() + at + step);
      if (closed) prompt.push_back(model.info().closing);
      prompts.push_back(std::move(prompt));
    }
  }
  if (prompts.empty())
    throw InputError(fmt::format("{}, --length {} needs at least {} in one text; give more text or a smaller --length",
                                 options.texts.size() == 1
                                     ? fmt::format("{} has {}", named(options.texts[0]), counted(n_token, "token"))
                                     : fmt::format("the {} texts have {} together", options.texts.size(), counted(n_token, "token")),
                                 options.length, options.length - static_cast<int>(n_mark)));
  return prompts;
}

std::vector<Prompt> read_token_file(const std::string& path, const ModelInfo& model) {
  const std::string shape = "give an array of arrays of token ids, as in [[1,2,3],[4,5,6]]";
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::parse_error& e) {
    throw InputError(fmt::format("{} is not JSON (at byte {}); {}", named(path), e.byte, shape));
  } catch (const nlohmann::json::exception&) {
    throw InputError(fmt::format("{} holds a number that is too large; {}", named(path), shape));
  }
  if (!json.is_array() || json.empty()) throw InputError(fmt::format("{} holds no list of prompts; {}", named(path), shape));
  std::vector<Prompt> prompts;
  for (const auto& row : json) {
    if (!row.is_array() || row.size() < 2)
      throw InputError(fmt::format("prompt {} of {} is no list of at least 2 token ids; {}", prompts.size(), named(path), shape));
    Prompt prompt;
    for (const auto& token : row) {
      if (!token.is_number_integer() || token < 0 || token >= model.n_vocab)
        throw InputError(fmt::format("prompt {} of {} holds {}, a token id of '{}' is an integer from 0 to {}; use this model's ids",
                                     prompts.size(), named(path),
                                     token.is_number() ? token.dump() : fmt::format("{} {}", token.is_array() || token.is_object() ? "an" : "a", token.type_name()),
                                     model.file, model.n_vocab - 1));
      prompt.push_back(token.get<int>());
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace

void one_of(const char* option, const std::string& value, std::initializer_list<const char*> known) {
  if (std::find(known.begin(), known.end(), value) == known.end())
    throw UsageError(fmt::format("{} '{}' is unknown; use {}", option, value, fmt::join(known, " or ")));
}

void check(const PromptOptions& o) {
  if (o.texts.empty() && o.tokens.empty())
    throw UsageError("there is nothing to run; give text files, - for standard input, or --tokens FILE");
  if (!o.texts.empty() && !o.tokens.empty()) throw UsageError("both text files and --tokens are given; give one of them");
  if (o.length != 0 && o.length < 2)
    throw UsageError(fmt::format("--length {} is no prompt; use 2 or more, or 0 for whole texts", o.length));
  one_of("--bos", o.bos, {"auto", "always", "never"});
  attention::kernels(o.isa);
  check_kv_type(o.kv_type);
  const auto at_least = [](const char* option, auto value, auto least) {
    if (value < least) throw UsageError(fmt::format("{} {} is too small; use {} or more", option, value, least));
  };
  at_least("--threads", o.threads, 0);
  if (o.threads > kMaxThreads) throw UsageError(fmt::format("--threads {} is too many; use {} or fewer", o.threads, kMaxThreads));
  at_least("--batch", o.batch, 1);
  at_least("--context", o.context, 0);
  at_least("--prompts", o.prompts, 0);
  if (o.prompts > measure::kMaxPrompts) throw UsageError(fmt::format("--prompts {} is too many; use {} or fewer", o.prompts, measure::kMaxPrompts));
  at_least("--min-rows", o.min_rows, 1);
  at_least("--gpu-layers", o.gpu_layers, 0);
  if (o.context == 1) throw UsageError("--context 1 is no prompt; use 2 or more, or 0 for whole prompts");
  if (!(o.epsilon > 0 && o.epsilon < 1)) throw UsageError(fmt::format("--epsilon {} is not between 0 and 1; 0.3 is usual", o.epsilon));
}

std::vector<Prompt> read_prompts(const PromptOptions& options, const Model& model, std::vector<std::string>& notes) {
  std::vector<Prompt> prompts = thinned(options.tokens.empty() ? cut_texts(options, model, notes) : read_token_file(options.tokens, model.info()),
                                        options.prompts > 0 ? options.prompts : measure::kMaxPrompts);
  if (options.context > 0)
    for (Prompt& p : prompts) p.resize(std::min<size_t>(p.size(), options.context));
  return prompts;
}

std::vector<Prompt> control_prompts(const std::string& kind, const std::vector<Prompt>& like, const Model& model,
                                    uint32_t seed) {
  const bool repeat = kind == "repeat";
  std::mt19937 random(seed);
  const auto word = [&] {
    for (int tries = 0;; ++tries) {
      const int token = static_cast<int>(random() % static_cast<uint32_t>(model.info().n_vocab));
      if (tries > 1000 || !model.is_control(token)) return token;
    }
  };
  std::vector<Prompt> prompts;
  for (const Prompt& p : like) {
    const int one = word();
    Prompt made(p.size());
    for (int& token : made) token = repeat ? one : word();
    if (!repeat && p[0] == model.info().bos) made[0] = p[0];
    if (!repeat && p.back() == model.info().closing) made.back() = p.back();
    prompts.push_back(std::move(made));
  }
  return prompts;
}

bool starts_with_bos(const std::vector<Prompt>& prompts, const Model& model) {
  return std::all_of(prompts.begin(), prompts.end(), [&](const Prompt& p) { return p[0] == model.info().bos; });
}

}  // namespace sinkscope::profile_run
