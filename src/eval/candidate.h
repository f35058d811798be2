// One policy with its settings, and how it fares.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "sinkscope/eval.h"
#include "sinkscope/session.h"

namespace sinkscope::eval_run {

constexpr int kTokensPerPoint = 1024;            // of EvalResult's *_by_1024
constexpr const char* kRecompute = "recompute";  // a policy of eval alone: it needs the tokens

class Candidate {
 public:
  Candidate(const Model& model, const EvalOptions& o, const std::string& kv_type, const MemoryOptions& memory);

  // The tokens [first, first + n) join what is remembered.
  void skip(std::span<const int> tokens, int first, int n);
  // Logits behind each of the tokens [first, first + n).
  const std::vector<float>& predict(std::span<const int> tokens, int first, int n);

  // To go on later, and back.
  nlohmann::json state(bool with_memory = true) const;
  void restore(const nlohmann::json& from);

  // What was predicted of a token: its negative log likelihood, and how that compares with the first candidate.
  void add(int token, double nll, double kl, bool same_top);
  // What result says in the end.
  void finish(bool alone);

  int n_thread() const { return session_.n_thread(); }
  const std::vector<std::string>& notes() const { return session_.notes(); }

  EvalResult result;

 private:
  void note_bytes();
  void from_scratch(std::span<const int> tokens, int first, int n);

  // Of kTokensPerPoint tokens.
  struct Stretch {
    int n_token = 0;
    double seconds = 0;
    int64_t rss = 0;
  };

  struct Losses {
    double sum = 0;
    int64_t n = 0;
    double perplexity() const { return std::exp(sum / static_cast<double>(n)); }
  };

  Session session_;
  bool recompute_;
  std::map<int, Stretch> stretches_;
  std::map<int, Losses> losses_;
  double kl_ = 0;
  int64_t n_same_top_ = 0;
  std::vector<float> logits_;
  double seconds_ = 0, rows_ = 0;
  int n_token_ = 0;
};

}  // namespace sinkscope::eval_run
