// From accumulators to metrics: who is a sink. Formulas and sources: docs/metrics.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "measure/recorder.h"
#include "sinkscope/profile.h"

namespace sinkscope::measure {

// A position counts as a sink in "sinks" and "tokens" when more than this share of heads sink on it.
inline constexpr double kSinkPositionPercent = 25;
// More than that, and more than twice what uniform attention gives at the same epsilon and length.
bool says_something(const SinkRate& rate, size_t position);
// A token is called a sink wherever it stands only when it was seen so often behind the first position.
inline constexpr int kMinOccurrences = 4;

// Percentile bootstrap (Efron) of the mean, 2,000 resamples; nothing for fewer than 2 values.
std::optional<Interval> bootstrap_ci95(std::span<const float> values, uint32_t seed);

inline constexpr int kMaxPrompts = 65535;  // that a Tally can count

// Adds up prompts, one after the other.
class Tally {
 public:
  // epsilon: of the sink rate. min_rows: rows that must see a key before its position may be called a sink.
  Tally(float epsilon, int min_rows) : epsilon_(epsilon), min_rows_(min_rows) {}

  void add(const Recorder& prompt, std::span<const int> tokens);

  // `seed`: of the bootstrap.
  SinkRate sink_rate(uint32_t seed) const;
  std::vector<LayerProfile> layers() const;
  // Token texts are left empty: there is no vocabulary here.
  std::vector<Sink> sinks(uint32_t seed) const;
  std::vector<SinkToken> sink_tokens() const;
  FirstShare first_share(uint32_t seed) const;
  std::optional<LearnedSink> learned_sink() const;
  // Mean sum of a row's weights on keys, over all heads: 1 for softmax without learned sinks.
  double mass() const { return n_prompt_ > 0 ? mass_ / n_prompt_ : 0; }
  // Per cent of rows whose strongest key is the first, over all heads.
  double strongest_is_first() const;
  std::optional<Interval> strongest_is_first_ci95(uint32_t seed) const;

 private:
  struct Head {
    std::vector<float> alpha_sum;      // [n_position]
    std::vector<uint16_t> n_sink;      // [n_position] prompts with alpha > epsilon
    double entropy = 0;                // sum over prompts of the mean over rows
    double strongest_is_first = 0;
    double first_mass[kNumFirst] = {};
    double learned_sink_mass = 0;
    int n_learned_sink = 0;            // prompts whose mean learned mass is above epsilon
  };
  // Of one prompt, over all heads: what intervals are made of.
  struct Means {
    double first_mass[kNumFirst] = {};
    double strongest_is_first = 0;
  };
  struct Layer {
    std::vector<Head> heads;           // empty: never seen
    std::vector<float> uniform_alpha_sum;  // [n_position]
    std::vector<uint16_t> n_uniform_sink;  // [n_position] prompts whose uniform alpha is above epsilon
    double uniform_first_mass[kNumFirst] = {};
    bool learned_sink = false;
  };
  struct TokenCount {
    int n = 0;
    double sink_share = 0;
  };

  void grow(std::span<const LayerRecord> layers, int n_token);
  void add_layer(const LayerRecord& record, Layer& layer, int n_token, std::vector<int>& n_sink_head, Means& sums);
  int n_head() const;
  template <class Value>
  std::vector<double> mean_over_heads(const Value& value) const;

  float epsilon_;
  int min_rows_;
  int n_prompt_ = 0;
  std::vector<Layer> layers_;
  std::vector<int> n_prompt_at_;               // [n_position] prompts that reach the position
  std::vector<double> column_share_;           // [n_position] sum over prompts of the share of all mass
  std::vector<uint32_t> rows_at_;              // [n_position] rows that could see it, the most of any prompt and layer
  std::vector<double> column_sum_;             // [n_position] sum over prompts of the mean over heads
  double mass_ = 0;                            // sum over prompts
  int shortest_ = 0;                           // of the prompts
  std::vector<Means> means_;                   // by prompt
  std::vector<std::vector<float>> percent_at_; // [n_position][prompt that reaches it] sink rate
  std::vector<std::map<int, int>> tokens_at_;  // [n_position] token -> prompts that have it there
  std::map<int, TokenCount> tokens_;
};

}  // namespace sinkscope::measure
