// The text of eval: what each candidate predicts of every token.
#pragma once

#include <memory>
#include <vector>

#include "eval/candidate.h"
#include "eval/checkpoint.h"

namespace sinkscope::eval_run {

// Runs the text through all candidates, chunk by chunk, and compares them with the first.
void predict(const Model& model, const EvalOptions& options, const std::vector<int>& tokens, std::vector<std::unique_ptr<Candidate>>& candidates,
             Checkpoint& checkpoint, const Progress& progress);

}  // namespace sinkscope::eval_run
