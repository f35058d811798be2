// Hidden states of one prompt: how long they are, which numbers of them stand out, and what put those there.
// Formulas and sources: docs/metrics.md.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "sinkscope/hooks.h"

namespace sinkscope::measure {

// One number of a hidden state.
struct Peak {
  float value = 0;
  int dim = -1;
};
inline constexpr int kPeaks = 16;  // largest magnitudes of a token that are kept: tokens with seven massive activations are known

// Behind a layer; the first one is before all layers.
struct HiddenRecord {
  // Of each token, [n_token].
  std::vector<float> norm;                        // length
  std::vector<float> median;                      // of the magnitudes
  std::vector<std::array<Peak, kPeaks>> peaks;    // largest magnitude first
  std::vector<float> cos_first;                   // cosine with the first token's
  // Over-mixing (Barbero et al., 2504.02732): || H - (1/n) 1 1^T H ||_F, how far rows are from being all equal, and || H ||_F.
  double spread() const;
  double length() const;

  std::vector<double> sum;                        // [n_embd] over tokens
  double sum_squares = 0;
};

// One of a token's largest numbers before or behind a layer, on its way through it.
struct Step {
  int layer = 0, position = 0, dim = 0;
  float before = 0, after_attention = 0, after = 0;  // after_attention is NaN where the graph does not name it
};

// Reads the tensors l_out, and for the steps what lies between attention and MLP (ffn_inp and its other names). Start it before each prompt.
class HiddenRecorder : public TensorHook {
 public:
  explicit HiddenRecorder(int n_thread) : n_thread_(n_thread) {}

  void start(int n_token);
  // [n_layer + 1], as far as the graph names them.
  std::span<const HiddenRecord> records() const { return records_; }
  const std::vector<Step>& steps() const { return steps_; }
  // The graph says what lies between attention and MLP.
  bool names_attention() const { return names_attention_; }
  // Whole hidden states are kept too: for perturbations. [record][token, n_embd]
  void keep_states(bool keep) { keeps_states_ = keep; }
  const std::vector<std::vector<float>>& states() const { return states_; }

  bool wants(std::string_view name, int layer) override;
  void see(const TensorView& tensor) override;

 private:
  void read(const TensorView& tensor, int record);
  void read_magnitudes(std::span<const float> row, int position, std::span<float> scratch, HiddenRecord& record) const;
  void find_steps(const TensorView& tensor, int layer);

  int n_thread_, n_token_ = 0, n_embd_ = 0;
  bool keeps_states_ = false, names_attention_ = false;
  std::vector<HiddenRecord> records_;
  std::vector<int> n_seen_;                  // [record] tokens so far
  std::vector<Step> steps_;
  std::vector<std::vector<float>> first_;    // [record] hidden state of the first token
  std::vector<std::vector<float>> states_;
  std::vector<float> before_, middle_;       // of the batch: before the layer that is being computed, and behind its attention
};

}  // namespace sinkscope::measure
