// What is learned from running some prompts again with a change: each function adds its part to an explanation.
#pragma once

#include <vector>

#include "measure/recorder.h"
#include "profile/prompts.h"
#include "sinkscope/explain.h"

namespace sinkscope::explain_run {

struct Context {
  const Model& model;
  Session& session;   // with logits and hooks
  const std::vector<profile_run::Prompt>& prompts;
  const ExplainOptions& options;
  const Progress& progress;
};

// Attention of one prompt, by head of all layers: means over the rows that see a key, added up over keys.
struct SinkMass {
  std::vector<int> positions;  // sink tokens; the first position where there is none
  std::vector<float> on_sinks, on_first;
};
std::vector<float> mass_on(const std::vector<int>& positions, const measure::Recorder& recorder);

// Perturbation test (Barbero et al., 2504.02732): one token of the first prompt is another one; how far do the others move, as the
// model is and when nobody can look at the first token?
void perturb(const Context& context, Explanation& result);

// Heads that sink on one prompt and not on another: what does the loss of both lose without them? The strongest of them, as
// far as a quarter of the tokens goes that the prompts have.
void confirm_dormant(const Context& context, const std::vector<SinkMass>& masses, Explanation& result);

// How much of the mass on sinks goes when the Super Experts are silent: D_sink of 2507.23279, over a quarter of the prompts.
void silence_super_experts(const Context& context, const std::vector<SinkMass>& masses, Explanation& result);

}  // namespace sinkscope::explain_run
