#include "intervene/hidden.h"

#include <algorithm>

namespace sinkscope::intervene {
namespace {

using Kind = Edit::Kind;

// Which of llama.cpp's tensors an edit changes.
std::string tensor_of(const Edit& e) {
  if (e.kind == Kind::silence_experts) return "ffn_moe_weighted";
  return e.of == "mlp" ? "ffn_out" : "l_out";
}

}  // namespace

HiddenEdits::HiddenEdits(std::span<const Edit> edits) {
  for (const Edit& e : edits)
    if (e.where() == Edit::Where::hidden) edits_.push_back(e);
}

void HiddenEdits::start(bool learns) {
  learns_ = learns;
  n_seen_.clear();
}

std::string HiddenEdits::missing() const {
  for (const Edit& e : edits_) {
    const std::string name = tensor_of(e);
    if (std::ranges::none_of(n_seen_, [&](const auto& seen) { return seen.first.first == name; })) return name;
  }
  return "";
}

bool HiddenEdits::wants(std::string_view name, int layer) {
  if (layer < 0) return false;
  return std::ranges::any_of(edits_, [&](const Edit& e) {
    return name == tensor_of(e) ? e.at_layer(layer) : e.kind == Kind::silence_experts && name == "ffn_moe_topk";
  });
}

void HiddenEdits::see(const TensorView& t) {
  if (t.integers) {
    std::vector<int>& chosen = chosen_[t.layer];
    chosen.clear();
    for (int64_t i = 0; i < t.n[1]; ++i) chosen.insert(chosen.end(), t.integer_row(i), t.integer_row(i) + t.n[0]);
    return;
  }
  int& seen = n_seen_[{std::string(t.name), t.layer}];
  const int first = seen;
  seen += static_cast<int>(t.n[1]);
  for (size_t i = 0; i < edits_.size(); ++i) {
    const Edit& e = edits_[i];
    if (t.name != tensor_of(e)) continue;
    if (e.kind == Kind::silence_experts) silence(e, t);
    else if (e.at_layer(t.layer)) change(e, i, t, first);
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
