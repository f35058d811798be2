// Questions whose answer stands somewhere in a text that was made up: does what a policy keeps still hold it?
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "eval/candidate.h"
#include "eval/checkpoint.h"

namespace sinkscope::eval_run {

// What comes before a question, the question, and the digits that answer it.
struct Question {
  std::string text, answer;
  bool starts_anew = false;  // from an empty memory
  int length = 0;            // of the passkey's text, tokens about
  double depth = 0;          // where in it the key stands, 0 to 1
  int line = 0;              // that is asked for
};

// Passkey retrieval (Mohtashami and Jaggi, 2305.16300): texts of n_token, half and a quarter of that, the key at five depths.
std::vector<Question> needle(int n_token, uint32_t seed);

// StreamEval (Xiao et al., 2309.17453): numbered lines, after each 10 a question about the line 20 lines back.
std::vector<Question> lines(int n_token, uint32_t seed);

// The first digits of an answer.
std::string digits_of(const std::string& text);

// Asks each candidate. What is answered stays in its memory, as in a conversation. Throws UsageError where there is no room for a
// question.
void ask(const Model& model, const EvalOptions& options, bool bos, std::vector<std::unique_ptr<Candidate>>& candidates, Checkpoint& checkpoint,
         const Progress& progress);

}  // namespace sinkscope::eval_run
