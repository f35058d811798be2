// The sinks of a model while it trains: the metrics of `sinkscope profile`, by the same code, and what explain says of hidden states.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/model.h"

namespace sinkscope::train {

constexpr float kEpsilon = 0.3f;  // a head sinks where its mean attention is above

struct Measurement {
  int64_t step = 0, tokens = 0;       // trained on so far
  double loss = 0, validation = 0;    // nats per token: of the steps since the last measurement, and of the probe
  double sink_rate = 0, sink_null = 0;            // per cent of heads that sink on the first position; the same under uniform attention
  double alpha = 0, alpha_null = 0;               // mean attention to it; the same under uniform attention
  double strongest = 0;                           // alpha of the strongest head
  int place = 0;                                  // position that most heads sink on, and what they do there
  double place_rate = 0, place_alpha = 0;
  double gated_alpha = 0;                         // alpha, each row's weights times its gate; alpha where there is no gate
  double mass = 0;                                // mean sum of a row: 1 for what is normalised
  std::optional<double> share;                    // alpha of weights that are divided by their row's sum: what compares where the mass is not 1
  std::vector<double> norm_ratio;     // [n_layer + 1] length of the first token's hidden state against the others' median
  std::vector<double> top_ratio;      // [n_layer + 1] largest |h| against the median |h|: massive activations
  std::vector<double> value_ratio;    // [n_layer] length of the first token's value against the others' median: value drain
};

// probe: tokens [n_prompt, n + 1]. `generator`-free: the same model gives the same numbers. Weights of diffusion models are measured
// on unmasked text, their validation loss at mask ratio one half.
Measurement measure(LanguageModel& model, const torch::Tensor& probe, const torch::Tensor& mask_token);

std::string to_json_line(const Measurement& m);
Measurement from_json_line(const std::string& line);  // throws InputError

// The measurement where sinks set in, by measure::onset(). -1: never.
int onset(const std::vector<Measurement>& curve);

// Log-spaced: 0, 1, ... n_step, about `n` of them.
std::vector<int64_t> measured_steps(int64_t n_step, int n);

}  // namespace sinkscope::train
