// Changes of a model while it runs, and the small language that names them: docs/ablate.md.
//
//   mask:positions=0            scale:positions=0,gamma=0.5,layers=3-9         mask:positions=0+silence:heads=5.1/6.0
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sinkscope::intervene {

// One change. What it does not name is everything.
struct Edit {
  enum class Kind { mask, scale, act, silence, off_by_one, sink_logits, zero, mean, clamp, silence_experts, no_bos, first_token, copies, move };
  enum class Where { attention, hidden, input };

  Kind kind{};
  std::vector<int> positions = {};
  std::vector<int> layers = {};                    // empty: all
  std::vector<std::pair<int, int>> heads = {};     // layer and head; empty: all
  std::vector<int> dims = {};
  std::vector<std::pair<int, int>> experts = {};   // layer and expert
  std::string of = "hidden";                       // hidden: what leaves a layer; mlp: what its MLP adds
  float gamma = 1, beta = 1, threshold = 0.1f;
  float limit = 0;                                 // of clamp
  int count = 1, token = -1, to = 0;
  // Of controls: an edit of the input means this token and not the first one; act calms as many keys, but others.
  int instead = 0;
  bool elsewhere = false;
  std::string file = {};

  Where where() const;
  bool at_layer(int layer) const;
  bool at_head(int layer, int head) const;
};

// "mask:positions=0+..." Throws UsageError with what was found, what is expected and what to do.
std::vector<Edit> parse(const std::string& spec);

// The language as a table, for help and documents: one line for each kind. Keys stand with spaces between.
struct Grammar {
  Edit::Kind kind;
  Edit::Where where;
  const char *name, *required, *optional, *does, *source;
};
std::span<const Grammar> grammar();

// Layers, heads, positions, dimensions that cannot be: throws UsageError. `n_token`: of the shortest prompt.
struct Shape {
  int n_layer, n_head, n_embd, n_expert, n_vocab, n_token;
};
void check(std::span<const Edit> edits, const Shape& shape);

}  // namespace sinkscope::intervene
