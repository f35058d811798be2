#include "profile/prompts.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::profile_run {
namespace {

std::string read_file(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  if (std::filesystem::is_directory(path)) throw InputError(fmt::format("'{}' is a folder; give a file in it", path));
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("cannot read '{}' ({}); give a file that exists", path, std::strerror(errno)));
  return {std::istreambuf_iterator<char>(file), {}};
}

bool wants_bos(const std::string& mode, const ModelInfo& model) {
  if (mode == "auto") return model.adds_bos && model.bos >= 0;
  if (mode == "never") return false;
  if (mode != "always") throw UsageError(fmt::format("--bos '{}' is unknown; use auto, always or never", mode));
  if (model.bos < 0) throw InputError(fmt::format("'{}' has no BOS token; use --bos never", model.file));
  return true;
}

// At most n of them, evenly over the whole.
std::vector<Prompt> thinned(std::vector<Prompt> prompts, int n) {
  if (n == 0 || static_cast<int>(prompts.size()) <= n) return prompts;
  std::vector<Prompt> some;
  for (int i = 0; i < n; ++i) some.push_back(std::move(prompts[static_cast<size_t>(i) * prompts.size() / n]));
  return some;
}

std::vector<Prompt> cut_texts(const ProfileOptions& options, const Model& model) {
  const bool bos = wants_bos(options.bos, model.info());
  std::vector<Prompt> prompts;
  size_t n_token = 0;
  for (const std::string& path : options.texts) {
    const std::vector<int> tokens = model.tokenize(read_file(path));
    n_token += tokens.size();
    const size_t step = options.length > 0 ? static_cast<size_t>(options.length - (bos ? 1 : 0)) : tokens.size();
    if (options.length == 0 && tokens.size() + (bos ? 1 : 0) < 2)
      throw InputError(fmt::format("{} has {} tokens, a prompt needs at least 2; give more text",
                                   path == "-" ? "standard input" : "'" + path + "'", tokens.size()));
    for (size_t at = 0; step > 0 && at + step <= tokens.size(); at += step) {
      Prompt prompt;
      if (bos) prompt.push_back(model.info().bos);
      prompt.insert(prompt.end(), tokens.begin() + at, tokens.begin() + at + step);
      prompts.push_back(std::move(prompt));
    }
  }
  if (prompts.empty())
    throw InputError(fmt::format("{} {} {} tokens, --length {} needs at least {}; give more text or a smaller --length",
                                 options.texts.size() == 1 ? "'" + options.texts[0] + "'" : "the texts",
                                 options.texts.size() == 1 ? "has" : "have no part of", n_token, options.length,
                                 options.length - (bos ? 1 : 0)));
  return prompts;
}

std::vector<Prompt> read_token_file(const std::string& path, const ModelInfo& model) {
  const std::string shape = "expected an array of arrays of token ids, as in [[1,2,3],[4,5,6]]";
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& e) {
    throw InputError(fmt::format("'{}' is not JSON (byte {}); {}", path,
                                 dynamic_cast<const nlohmann::json::parse_error*>(&e)
                                     ? dynamic_cast<const nlohmann::json::parse_error*>(&e)->byte : 0, shape));
  }
  if (!json.is_array() || json.empty()) throw InputError(fmt::format("'{}' holds no list of prompts; {}", path, shape));
  std::vector<Prompt> prompts;
  for (const auto& row : json) {
    if (!row.is_array() || row.size() < 2)
      throw InputError(fmt::format("prompt {} of '{}' is no list of at least 2 token ids; {}", prompts.size(), path, shape));
    Prompt prompt;
    for (const auto& token : row) {
      if (!token.is_number_integer() || token < 0 || token >= model.n_vocab)
        throw InputError(fmt::format("prompt {} of '{}' holds {}, the vocabulary of '{}' has tokens 0 to {}; use this model's ids",
                                     prompts.size(), path,
                                     token.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).substr(0, 40),
                                     model.file, model.n_vocab - 1));
      prompt.push_back(token.get<int>());
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace

std::vector<Prompt> read_prompts(const ProfileOptions& options, const Model& model) {
  if (options.texts.empty() == options.tokens.empty())
    throw UsageError(options.tokens.empty() ? "there is nothing to profile on; give text files, - for standard input, or --tokens FILE"
                                            : "both text files and --tokens are given; give one of them");
  if (options.length != 0 && options.length < 2)
    throw UsageError(fmt::format("--length {} is no prompt; use 2 or more, or 0 for whole texts", options.length));
  if (!options.tokens.empty()) return thinned(read_token_file(options.tokens, model.info()), 0);
  std::vector<Prompt> prompts = thinned(cut_texts(options, model), options.prompts);
  if (options.context > 0)
    for (Prompt& p : prompts) p.resize(std::min<size_t>(p.size(), options.context));
  return prompts;
}

std::vector<Prompt> control_prompts(const std::string& kind, const std::vector<Prompt>& like, const Model& model,
                                    uint32_t seed) {
  const bool repeat = kind == "repeat";
  if (!repeat && kind != "random") throw UsageError(fmt::format("--baseline '{}' is unknown; use random or repeat", kind));
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
    prompts.push_back(std::move(made));
  }
  return prompts;
}

bool starts_with_bos(const std::vector<Prompt>& prompts, const Model& model) {
  return std::all_of(prompts.begin(), prompts.end(), [&](const Prompt& p) { return p[0] == model.info().bos; });
}

}  // namespace sinkscope::profile_run
