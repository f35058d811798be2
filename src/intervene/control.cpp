#include "intervene/control.h"

#include <algorithm>

namespace sinkscope::intervene {
namespace {

using Kind = Edit::Kind;

// As many of [first, n) as there are, none of which is among them; empty where there are too few.
std::vector<int> others(const std::vector<int>& taken, int first, int n, std::mt19937& random) {
  std::vector<int> left;
  for (int i = first; i < n; ++i)
    if (std::ranges::find(taken, i) == taken.end()) left.push_back(i);
  if (left.size() < taken.size()) return {};
  std::ranges::shuffle(left, random);
  left.resize(taken.size());
  std::ranges::sort(left);
  return left;
}

// The same within each layer.
std::vector<std::pair<int, int>> others(const std::vector<std::pair<int, int>>& taken, int n, std::mt19937& random) {
  std::vector<std::pair<int, int>> drawn;
  for (const auto& [layer, index] : taken) {
    const auto of_layer = [&, l = layer](const auto& list) {
      std::vector<int> indices;
      for (const auto& [at, i] : list)
        if (at == l) indices.push_back(i);
      return indices;
    };
    if (!of_layer(drawn).empty()) continue;  // with the layer's first
    const std::vector<int> indices = others(of_layer(taken), 0, n, random);
    if (indices.empty()) return {};
    for (const int i : indices) drawn.emplace_back(layer, i);
  }
  return drawn;
}

// Edits of every head and layer have no place that could be another.
bool has_place(const Edit& e) { return e.where() == Edit::Where::input || e.kind == Kind::act || !(e.dims.empty() && e.experts.empty() && e.positions.empty() && e.heads.empty() && e.layers.empty()); }

// Says what was drawn; empty: nothing can be.
std::string redraw(Edit& e, const Shape& s, std::mt19937& random) {
  if (!e.dims.empty()) return (e.dims = others(e.dims, 0, s.n_embd, random)).empty() ? "" : "dimensions";
  if (!e.experts.empty()) return (e.experts = others(e.experts, s.n_expert, random)).empty() ? "" : "experts";
  if (e.kind == Kind::act) return e.elsewhere = true, "keys";
  // The first position is never drawn: it is what the control is compared with.
  if (!e.positions.empty()) return (e.positions = others(e.positions, 1, s.n_token, random)).empty() ? "" : "positions";
  if (!e.heads.empty()) return (e.heads = others(e.heads, s.n_head, random)).empty() ? "" : "heads";
  if (!e.layers.empty()) return (e.layers = others(e.layers, 0, s.n_layer, random)).empty() ? "" : "layers";
  if (e.where() != Edit::Where::input || s.n_token < 4) return "";
  e.instead = std::uniform_int_distribution(1, s.n_token - 2)(random);
  if (e.kind == Kind::move) e.to = e.instead + 1;
  return "tokens";
}

}  // namespace

std::optional<Control> control_of(std::span<const Edit> edits, const Shape& shape, std::mt19937& random) {
  Control control{.edits = {edits.begin(), edits.end()}};
  for (Edit& e : control.edits) {
    if (!has_place(e)) continue;
    const std::string what = redraw(e, shape, random);
    if (what.empty()) return std::nullopt;
    if (control.what.find(what) == std::string::npos) control.what += (control.what.empty() ? "" : " and ") + what;
  }
  if (control.what.empty()) return std::nullopt;
  return control;
}

}  // namespace sinkscope::intervene
