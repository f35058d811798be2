// What the model of a run loses on the validation part when its weights are rounded, and when it forgets: when queries see the last
// keys alone, with and without the first ones; and its sinks on prompts of other lengths than telemetry's.
#pragma once

#include <string>
#include <vector>

#include "model/model.h"
#include "training/telemetry.h"

namespace sinkscope::train {

struct EvaluationOptions {
  std::vector<std::string> types = {"q8_0", "q4_0"};  // that the layers' matrices are rounded to, by ggml's quantiser
  int window = 64;                       // last keys that remain, the query's own included
  std::vector<int> first = {0, 1, 4};    // first keys that remain too
  std::vector<int> lengths = {};         // of prompts that sinks are measured on: fronts of the contexts
  int contexts = 64;                     // of the validation part
};

struct Evaluation {
  double loss = 0;                       // nats per token
  std::vector<double> rounded;           // the same by type
  // Of the tokens behind the window, at the positions that they were trained on.
  double loss_behind = 0;
  std::vector<double> streaming;         // by number of first keys
  std::vector<Measurement> sinks;        // by length
};

// Rounds the layers' matrices to a type of ggml, to the numbers that the file of llama.cpp's quantiser has. Embedding, norms, routers
// and learned keys and values stay as they are. Throws UsageError as evaluate_run does.
void round_layers(LanguageModel& model, const std::string& type);

// Throws UsageError for types that ggml has not or that do not fit the model's rows, InputError for a folder without a model.
Evaluation evaluate_run(const std::string& folder, const EvaluationOptions& options);

}  // namespace sinkscope::train
