// Edits of hidden states, of what an MLP adds, and of experts: tensors that are changed on their way.
#pragma once

#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "intervene/edit.h"
#include "sinkscope/hooks.h"

namespace sinkscope::intervene {

class HiddenEdits : public TensorHook {
 public:
  explicit HiddenEdits(std::span<const Edit> edits);

  // Before each prompt. While it learns, nothing is changed, and the means are taken that `mean` needs.
  void start(bool learns);
  // Of tensors that an edit needs and the model's graph did not name in the last prompt; empty: none.
  std::string missing() const;
  bool any() const { return !edits_.empty(); }

  bool wants(std::string_view name, int layer) override;
  void see(const TensorView& tensor) override;

 private:
  struct Mean {
    double sum = 0;
    int n = 0;
  };
  void change(const Edit& edit, size_t index, const TensorView& tensor, int first);
  void silence(const Edit& edit, const TensorView& experts) const;

  std::vector<Edit> edits_;
  bool learns_ = false;
  std::map<std::pair<std::string, int>, int> n_seen_;            // by name and layer: tokens of the prompt
  std::map<std::tuple<size_t, int, int, int>, Mean> means_;      // by edit, layer, position, dimension
  std::map<int, std::vector<int>> chosen_;                       // by layer: experts of the batch, [n_token, n_used]
};

}  // namespace sinkscope::intervene
