// The smallest test bed in which a sink grows: Bigram-Backcopy (Guo et al., 2410.13835). A Markov chain over tokens, but behind each
// trigger token the token before it comes again. A head that copies has nothing to do elsewhere, and with softmax it must put its weight
// somewhere.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <torch/torch.h>

namespace sinkscope::train {

// One layer with one head, as in the paper. The chain's transitions are drawn from the seed (theirs are counted in Shakespeare).
struct BackcopyOptions {
  std::string attention = "softmax";  // a variant of model/variants.h
  std::string position = "rope";      // rope, learned, alibi, none (theirs: learned)
  int vocabulary = 67;                // tokens, BOS among them
  int triggers = 3;                   // the most frequent tokens
  int context = 256, width = 256;
  int batch = 512, steps = 10'000;
  double rate = 3e-4;                 // Adam's
  uint32_t seed = 1;
};

// Of a fixed batch. Rows are those behind the first 16, whose queries see many keys.
struct BackcopyMeasurement {
  int step = 0;
  double bigram_loss = 0, copy_loss = 0;      // nats above the chain's own entropy, and behind triggers
  double sink = 0, sink_null = 0;             // mean weight on BOS where there is no trigger; the same under uniform attention
  double mass = 0;                            // mean sum of these rows: 1 for softmax
  double trigger_sink = 0, trigger_copy = 0;  // where there is one: weight on BOS, and on the token before
  double value_ratio = 0;                     // length of BOS's value against the others' median: value drain
  double added_ratio = 0;                     // what attention adds where there is no trigger, against where there is one (lengths): dormant
};

// Sequences of the task: BOS, a token that is no trigger, then by the rule.
class BackcopyTask {
 public:
  explicit BackcopyTask(const BackcopyOptions& options);
  // [n, context + 1]; the same for the same seed.
  torch::Tensor batch(int n, uint64_t seed) const;
  bool is_trigger(int64_t token) const { return triggers_[token]; }
  torch::Tensor triggers() const;     // [vocabulary] booleans
  double entropy(int64_t token) const { return entropy_[token]; }  // of what follows, nats
  static constexpr int kBos = 0;

 private:
  BackcopyOptions options_;
  std::vector<std::vector<double>> cumulative_;  // [token][next token]
  std::vector<double> start_, entropy_;
  std::vector<bool> triggers_;
};

// Trains, and measures about `n_measurement` times, evenly over the logarithm of steps; `watch` is told each, `go_on` is asked before
// each step. Throws UsageError for options that cannot be.
std::vector<BackcopyMeasurement> run_bigram_backcopy(const BackcopyOptions& options, int n_measurement, const std::function<void(const BackcopyMeasurement&)>& watch = {},
                                                     const std::function<bool()>& go_on = {});

}  // namespace sinkscope::train
