// How a model's sinks come about: the same prompts through its checkpoints, one after the other. The JSON: docs/json.md.
#pragma once

#include <string>
#include <vector>

#include "sinkscope/profile.h"

namespace sinkscope {

// `model` is not used.
struct EmergenceOptions : PromptOptions {
  std::vector<std::string> checkpoints;  // GGUF files of one model
  std::vector<int> steps;                // of training, one for each checkpoint; empty: the numbers in their names
  std::string json, plot;                // files to write: the curve, and a picture of it (SVG, by gnuplot)
};

// Means over prompts, of the first position; docs/metrics.md.
struct EmergencePoint {
  std::string file, sha256;
  int64_t step = 0;
  double sink_rate = 0, sink_null = 0;   // per cent of heads that sink on it; the same under uniform attention
  double alpha = 0, alpha_null = 0;      // mean attention to it; the same under uniform attention
  LayerHead strongest;                   // the head that gives it most
  double mass = 0;                       // mean sum of a row's weights on keys
  std::vector<double> norm_ratio;        // [n_layer + 1], before the first layer, then behind each: length of the first token's hidden state
                                         // against the others' median; empty where the graph does not name hidden states
};

struct Emergence {
  ModelInfo model;                       // of the last checkpoint, as `run`
  RunInfo run;
  std::vector<EmergencePoint> points;    // by step
  int onset = -1;                        // the point from which on sinks are there (docs/training.md); -1: they are not
  std::vector<std::string> notes;        // what a reader must know, a sentence each

  std::string answer() const;            // the result in one sentence
};

// The step in a checkpoint's name: the number behind "step", else the last one; -1: it has none.
int64_t step_in_name(const std::string& file);

// Throws UsageError for options that cannot be, InputError for bad files and texts, and for checkpoints of different models.
Emergence emergence(const EmergenceOptions& options, const Progress& progress = {});

std::string to_json(const Emergence& emergence);  // sinkscope.emergence/1

}  // namespace sinkscope
