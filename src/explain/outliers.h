// Numbers of hidden states that stand out, gathered over prompts: massive activations and sink dimensions, and which component
// of which layer lets them rise and fall. Formulas and sources: docs/metrics.md.
#pragma once

#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "measure/hidden.h"
#include "sinkscope/explain.h"

namespace sinkscope::explain_run {

double median_of(std::vector<float> values);

class Outliers {
 public:
  // Of one prompt; `prompt` holds its tokens.
  void add(std::span<const measure::HiddenRecord> records, std::span<const measure::Step> steps, std::span<const int> prompt);
  // The largest first. Texts are left empty.
  std::vector<Outlier> list() const;
  // Layers that let a massive activation grow by the size of one.
  std::set<int> forming_layers() const;

 private:
  // How a magnitude changes in one layer: sums over prompts.
  struct Change {
    double attention = 0, mlp = 0;
    int n = 0;                      // sums of so many
    bool told_apart = true;         // false: all of it is in mlp
    double all() const { return attention + mlp; }
    const char* by() const;
  };
  struct Trace {
    Outlier outlier;
    std::set<std::pair<int, int>> places;  // prompt and position
    std::map<int, Change> changes;         // by layer
  };
  // Of the first position, whatever token is there; elsewhere of a token, wherever it is.
  static std::pair<int, int> key(int position, int token, int dim) { return {position == 0 ? -1 : token, dim}; }

  void see_peak(const measure::Peak& peak, int position, int token, int layer, double layer_median, double rms);
  static void name_changes(const Trace& trace, Outlier& outlier);

  std::map<std::pair<int, int>, Trace> traces_;
  int n_prompt_ = 0;
};

}  // namespace sinkscope::explain_run
