// What a model loses when something of it is changed while it runs, against the same change at places drawn at random.
// The language of edits: docs/ablate.md. The JSON: docs/json.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sinkscope/profile.h"

namespace sinkscope {

struct AblateOptions : PromptOptions {
  std::vector<std::string> edits;
  int controls = 3;        // draws of each control; 0: none
  std::string json;        // sinkscope.ablate/1
  std::string report, svg; // HTML, a picture
};

// Against the model as it is, over all tokens that both predict from the same text.
struct Change {
  double loss = 0;                     // mean negative log likelihood, nats per token
  double loss_change = 0;
  std::optional<Interval> loss_change_ci95;  // bootstrap over prompts; from 2 prompts on
  double kl = 0;                       // nats per token, of the model as it is from the changed one
  double same_top = 0;                 // per cent of tokens for which both find the same token most likely
  double sink_rate = 0;                // of the first position
};

struct Ablation {
  std::string edit;
  Change change;
  std::optional<Change> control;       // mean over the draws
  std::string control_of;              // what was drawn: positions, heads, dimensions, ...; empty: there is no control
};

struct Ablations {
  ModelInfo model;
  std::string sha256 = {};
  RunInfo run = {};
  double loss = 0, sink_rate = 0;      // as it is
  int controls = 0;
  std::vector<Ablation> edits = {};
  std::vector<std::string> notes = {};
};

// Throws UsageError for edits that cannot be read or are not in this model, otherwise as profile() does.
Ablations ablate(const AblateOptions& options, const Progress& progress = {});

std::string to_json(const Ablations& ablations);  // sinkscope.ablate/1

}  // namespace sinkscope
