#include "eval/tasks.h"

#include <algorithm>
#include <cctype>
#include <random>

#include <fmt/format.h>

#include "sinkscope/error.h"

namespace sinkscope::eval_run {
namespace {

constexpr int kTokensOfFiller = 24, kTokensOfLine = 20;  // about: how long texts become
constexpr int kLinesBetween = 10, kLinesBack = 20;
constexpr int kLeastTokens = 128;  // of a needle's text: a quarter of it must hold the needle

std::string some_number(std::mt19937& random) { return std::to_string(10000 + random() % 90000); }

}  // namespace

std::vector<Question> needle(int n_token, uint32_t seed) {
  constexpr const char* kFiller = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
  std::mt19937 random(seed);
  std::vector<Question> questions;
  for (const int length : {n_token / 4, n_token / 2, n_token})
    for (const double depth : {0.0, 0.25, 0.5, 0.75, 1.0}) {
      const std::string key = some_number(random);
      const int n = std::max(1, length / kTokensOfFiller), before = static_cast<int>(depth * n);
      std::string text = "There is important information hidden in this text. Find it and remember it. ";
      for (int i = 0; i <= n; ++i) {
        if (i == before) text += fmt::format("The pass key is {}. Remember it. {} is the pass key. ", key, key);
        if (i < n) text += kFiller;
      }
      questions.push_back({.text = text + "What is the pass key? The pass key is", .answer = key, .starts_anew = true, .length = length, .depth = depth});
    }
  return questions;
}

std::vector<Question> lines(int n_token, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::string> contents;
  std::vector<Question> questions;
  std::string text;
  for (int line = 1; line * kTokensOfLine < n_token; ++line) {
    contents.push_back(some_number(random));
    text += fmt::format("line {}: REGISTER_CONTENT is {}\n", line, contents.back());
    if (line % kLinesBetween != 0 || line <= kLinesBack) continue;
    const int asked = line - kLinesBack;
    questions.push_back({.text = text + fmt::format("What is the REGISTER_CONTENT in line {}? The REGISTER_CONTENT in line {} is", asked, asked),
                         .answer = contents[asked - 1], .starts_anew = questions.empty(), .line = asked});
    text = "\n";
  }
  return questions;
}

std::string digits_of(const std::string& text) {
  const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0; };
  const auto begin = std::ranges::find_if(text, is_digit);
  return {begin, std::find_if_not(begin, text.end(), is_digit)};
}

namespace {

// The answer to a question that stands behind `tokens`, of which the first n_run are in the candidate's memory.
std::string answer(const Model& model, Candidate& c, std::vector<int>& tokens, size_t& n_run, size_t n_digit) {
  constexpr int kMostTokens = 12;
  c.skip(tokens, static_cast<int>(n_run), static_cast<int>(tokens.size() - 1 - n_run));
  std::string text;
  for (int i = 0; i < kMostTokens && text.find('\n') == std::string::npos && digits_of(text).size() < n_digit; ++i) {
    n_run = tokens.size();
    const std::vector<float>& logits = c.predict(tokens, static_cast<int>(n_run) - 1, 1);
    tokens.push_back(static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    text += model.token_text(tokens.back());
  }
  return digits_of(text).substr(0, n_digit);
}

}  // namespace

void ask(const Model& model, const EvalOptions& o, bool bos, std::vector<std::unique_ptr<Candidate>>& candidates, Checkpoint& checkpoint, const Progress& progress) {
  const std::vector<Question> questions = o.task == "needle" ? needle(o.tokens, o.seed) : lines(o.tokens, o.seed);
  if (questions.empty() || (o.task == "needle" && o.tokens < kLeastTokens)) throw UsageError(fmt::format("--tokens {} is too short for a question of task {}; use more", o.tokens, o.task));
  // One candidate after the other, each asked all questions.
  std::vector<int> tokens;
  size_t n_run = 0, done = 0;
  if (const nlohmann::json state = checkpoint.read(); !state.is_null()) {
    done = state.at("done"), n_run = state.at("n_run"), tokens = state.at("tokens").get<std::vector<int>>();
    for (size_t c = 0; c < state.at("candidates").size(); ++c) candidates[c]->restore(state.at("candidates").at(c));
  }
  for (; done < questions.size() * candidates.size(); ++done) {
    const size_t now = done / questions.size();
    if (checkpoint.is_due()) {
      nlohmann::json states = nlohmann::json::array();
      for (size_t c = 0; c <= now; ++c) states.push_back(candidates[c]->state(/*with_memory=*/c == now));
      checkpoint.write({{"done", done}, {"n_run", n_run}, {"tokens", tokens}, {"candidates", states}});
    }
    const Question& q = questions[done % questions.size()];
    Candidate& c = *candidates[now];
    if (q.starts_anew) tokens.assign(bos ? 1 : 0, model.info().bos), n_run = 0;
    for (const int t : model.tokenize(q.text)) tokens.push_back(t);
    const std::string found = answer(model, c, tokens, n_run, q.answer.size());
    c.result.answers.push_back({.length = q.length, .depth = q.depth, .line = q.line, .expected = q.answer, .found = found});
    if (progress) progress("questions", static_cast<int64_t>(done) + 1, static_cast<int64_t>(questions.size() * candidates.size()));
  }
}

}  // namespace sinkscope::eval_run
