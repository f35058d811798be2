// Edits of hidden states, of what an MLP adds, and of experts: tensors that are changed on their way.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "intervene/edit.h"
#include "sinkscope/hooks.h"

namespace sinkscope::intervene {

// The tensors that a model's graph names, by name and layer. A hook that looks at none of them.
class GraphNames : public TensorHook {
 public:
  bool wants(std::string_view name, int layer) override { return names_.emplace(name, layer), false; }
  void see(const TensorView&) override {}
  bool has(const std::string& name, int layer) const { return names_.contains({name, layer}); }

 private:
  std::set<std::pair<std::string, int>> names_;
};

class HiddenEdits : public TensorHook {
 public:
  // Throws InputError where the graph does not name what an edit changes. `what`: the model, for that sentence.
  HiddenEdits(std::span<const Edit> edits, const GraphNames& names, int n_layer, const std::string& what);

  // Before each prompt. While it learns, nothing is changed, and the means are taken that `mean` needs.
  void start(bool learns);
  bool any() const { return !targets_.empty(); }

  bool wants(std::string_view name, int layer) override;
  void see(const TensorView& tensor) override;

 private:
  struct Target {
    Edit edit;
    std::map<int, std::string> tensors;   // by layer
    bool changes(const TensorView& t) const {
      const auto at = tensors.find(t.layer);
      return at != tensors.end() && at->second == t.name;
    }
  };
  struct Mean {
    double sum = 0;
    int n = 0;
  };
  void change(const Edit& edit, size_t index, const TensorView& tensor, int first);
  void silence(const Edit& edit, const TensorView& experts) const;

  std::vector<Target> targets_;
  bool learns_ = false;
  std::map<std::pair<std::string, int>, int> n_seen_;            // by name and layer: tokens of the prompt
  std::map<std::tuple<size_t, int, int, int>, Mean> means_;      // by edit, layer, position, dimension
  std::map<int, std::vector<int>> chosen_;                       // by layer: experts of the batch, [n_token, n_used]
};

}  // namespace sinkscope::intervene
