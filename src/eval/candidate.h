// One policy with its settings, and how it fares.
#pragma once

#include <chrono>
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
  nlohmann::json state() const;
  void restore(const nlohmann::json& from);

  // What result says in the end of a text whose first `skip` tokens counted for nothing.
  void finish(size_t skip, bool alone);

  int n_thread() const { return session_.n_thread(); }
  const std::vector<std::string>& notes() const { return session_.notes(); }

  EvalResult result;
  std::vector<double> nll;             // of each token behind the first and the skipped ones
  double kl = 0;
  int64_t n_same_top = 0;

 private:
  void from_scratch(std::span<const int> tokens, int first, int n);

  // Of kTokensPerPoint tokens.
  struct Stretch {
    int n_token = 0;
    double seconds = 0;
    int64_t rss = 0;
  };

  Session session_;
  bool recompute_;
  std::map<int, Stretch> stretches_;
  std::vector<float> logits_;
  double seconds_ = 0, rows_ = 0;
  int n_token_ = 0;
};

}  // namespace sinkscope::eval_run
