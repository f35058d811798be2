#include "intervene/hidden.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sinkscope/error.h"

namespace sinkscope::intervene {
namespace {

using Kind = Edit::Kind;

// llama.cpp's name of the tensor that an edit changes: the first of these that the graph has. A mixture of experts with a shared one
// names the sum of both ffn_out.
std::span<const char* const> tensors_of(const Edit& e) {
  static constexpr const char* kExperts[] = {"ffn_moe_weighted"};
  static constexpr const char* kMlp[] = {"ffn_out", "ffn_moe_out"};
  static constexpr const char* kHidden[] = {"l_out"};
  if (e.kind == Kind::silence_experts) return kExperts;
  return e.of == "mlp" ? std::span<const char* const>(kMlp) : kHidden;
}

bool names_layer(const Edit& e, int layer) {
  return e.kind == Kind::silence_experts ? std::ranges::any_of(e.experts, [&](const auto& x) { return x.first == layer; }) : e.at_layer(layer);
}

}  // namespace

HiddenEdits::HiddenEdits(std::span<const Edit> edits, const GraphNames& names, int n_layer, const std::string& what) {
  for (const Edit& e : edits) {
    if (e.where() != Edit::Where::hidden) continue;
    Target target{.edit = e, .tensors = {}};
    for (int layer = 0; layer < n_layer; ++layer) {
      if (!names_layer(e, layer)) continue;
      const auto name = std::ranges::find_if(tensors_of(e), [&](const char* n) { return names.has(n, layer); });
      if (name != tensors_of(e).end()) target.tensors[layer] = *name;
      else if (!e.layers.empty() || !e.experts.empty())
        throw InputError(fmt::format("the graph of {} names no tensor {} in layer {}, which this edit changes; use other layers", what, fmt::join(tensors_of(e), " or "), layer));
    }
    if (target.tensors.empty())
      throw InputError(fmt::format("the graph of {} names no tensor {}, which this edit changes; use another edit", what, fmt::join(tensors_of(e), " or ")));
    targets_.push_back(std::move(target));
  }
}

void HiddenEdits::start(bool learns) {
  learns_ = learns;
  n_seen_.clear();
}

bool HiddenEdits::wants(std::string_view name, int layer) {
  return std::ranges::any_of(targets_, [&](const Target& t) {
    return t.changes({.name = name, .layer = layer}) || (t.edit.kind == Kind::silence_experts && name == "ffn_moe_topk" && t.tensors.contains(layer));
  });
}

void HiddenEdits::see(const TensorView& t) {
  if (t.nth > 0) return;  // NeoX's sum of MLP and residual, GroveMoE's second experts
  if (t.integers) {
    std::vector<int>& chosen = chosen_[t.layer];
    chosen.clear();
    for (int64_t i = 0; i < t.n[1]; ++i) chosen.insert(chosen.end(), t.integer_row(i), t.integer_row(i) + t.n[0]);
    return;
  }
  int& seen = n_seen_[{std::string(t.name), t.layer}];
  const int first = seen;
  seen += static_cast<int>(t.n[1]);
  for (size_t i = 0; i < targets_.size(); ++i) {
    if (!targets_[i].changes(t)) continue;
    if (targets_[i].edit.kind == Kind::silence_experts) silence(targets_[i].edit, t);
    else change(targets_[i].edit, i, t, first);
  }
}

void HiddenEdits::change(const Edit& e, size_t index, const TensorView& t, int first) {
  for (int64_t i = 0; i < t.n[1]; ++i) {
    const int position = first + static_cast<int>(i);
    if (!e.positions.empty() && !std::ranges::binary_search(e.positions, position)) continue;
    for (const int d : e.dims) {
      if (d >= t.n[0]) continue;
      float& x = t.row(i)[d];
      if (e.kind == Kind::mean) {
        Mean& mean = means_[{index, t.layer, position, d}];
        if (learns_) mean.sum += x, ++mean.n;
        else if (mean.n > 0) x = static_cast<float>(mean.sum / mean.n);
      } else if (!learns_) {
        x = e.kind == Kind::zero ? 0 : std::clamp(x, -e.limit, e.limit);
      }
    }
  }
}

// [n_embd, n_used, n_token]: what the chosen experts are about to add.
void HiddenEdits::silence(const Edit& e, const TensorView& t) const {
  const auto chosen = chosen_.find(t.layer);
  if (learns_ || chosen == chosen_.end() || static_cast<int64_t>(chosen->second.size()) != t.n[1] * t.n[2]) return;
  for (int64_t token = 0; token < t.n[2]; ++token)
    for (int64_t used = 0; used < t.n[1]; ++used)
      if (std::ranges::find(e.experts, std::pair(t.layer, chosen->second[token * t.n[1] + used])) != e.experts.end())
        std::fill_n(t.row(used, token), t.n[0], 0.0f);
}

}  // namespace sinkscope::intervene
