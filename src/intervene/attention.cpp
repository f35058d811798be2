#include "intervene/attention.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <random>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "attention/columns.h"
#include "sinkscope/error.h"

namespace sinkscope::intervene {
namespace {

using Kind = Edit::Kind;

// Mean weight of every key, over the queries that see it: [n_head, n_key].
class ColumnMeans : public Probe {
 public:
  explicit ColumnMeans(const attention::Kernels& kernels) : columns_(kernels) {}
  void begin(const AttentionShape& shape) override {
    shape_ = &shape;
    mean.assign(static_cast<size_t>(shape.n_head) * shape.n_key, 0);
    columns_.begin(shape);
  }
  void see(const Tile& tile) override { columns_.see(tile); }
  void merge(int stream, int first_head, int n_head) override {
    for (int h = first_head; h < first_head + n_head; ++h) {
      double* of_head = mean.data() + static_cast<size_t>(h) * shape_->n_key;
      columns_.take(h - first_head, shape_->n_key, of_head, nullptr);
      const uint32_t* n_row = shape_->key_n_row.data() + static_cast<size_t>(shape_->plane(stream, h)) * shape_->n_key;
      for (int k = 0; k < shape_->n_key; ++k) of_head[k] /= std::max(n_row[k], 1u);
    }
  }
  std::vector<double> mean;

 private:
  attention::ColumnSlots columns_;
  const AttentionShape* shape_ = nullptr;
};

std::vector<float> read_logits(const std::string& path, const Shape& shape) {
  const std::string want = fmt::format("give a JSON array of {} layers with {} numbers each", shape.n_layer, shape.n_head);
  std::ifstream file(path);
  if (!file) throw InputError(fmt::format("'{}' cannot be read; {}", path, want));
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  std::vector<float> logits;
  if (json.is_array())
    for (const auto& layer : json)
      for (const auto& x : layer.is_array() && static_cast<int>(layer.size()) == shape.n_head ? layer : nlohmann::json::array())
        if (x.is_number()) logits.push_back(x.get<float>());
  if (!json.is_array() || static_cast<int>(json.size()) != shape.n_layer || static_cast<int>(logits.size()) != shape.n_layer * shape.n_head)
    throw InputError(fmt::format("'{}' holds no logits of this model's heads; {}", path, want));
  return logits;
}

}  // namespace

AttentionEdits::AttentionEdits(std::span<const Edit> edits, const Shape& shape, const attention::Kernels& kernels, uint32_t seed)
    : n_head_(shape.n_head), kernels_(kernels), seed_(seed) {
  for (const Edit& e : edits) {
    if (e.where() != Edit::Where::attention) continue;
    edits_.push_back(e);
    sink_logits_.push_back(e.kind == Kind::sink_logits ? read_logits(e.file, shape) : std::vector<float>());
  }
}

void AttentionEdits::before(attention::Call& call, const std::function<void(Probe&)>& compute) {
  heads_.assign(call.n_head, {});
  bias_.assign(call.n_head, {});
  logits_.assign(call.n_head, {});
  calmed_.assign(call.n_head, {});
  bool any = false;
  for (size_t i = 0; i < edits_.size(); ++i) {
    const Edit& e = edits_[i];
    const bool strong = e.kind == Kind::act && e.beta != 1 && e.at_layer(call.layer);
    const std::vector<std::vector<int>> keys = strong ? strong_keys(e, call, compute) : std::vector<std::vector<int>>();
    for (int h = 0; h < call.n_head; ++h) {
      if (!e.at_head(call.layer, h)) continue;
      attention::HeadEdit& head = heads_[h];
      any = true;
      switch (e.kind) {
        case Kind::mask:
        case Kind::scale:
          bias_[h].resize(call.n_key);
          for (const int k : e.positions)
            if (k < call.n_key) bias_[h][k] += e.kind == Kind::mask || e.gamma == 0 ? -std::numeric_limits<float>::infinity() : std::log(e.gamma);
          head.bias = bias_[h];
          break;
        case Kind::off_by_one:
        case Kind::sink_logits:
          if (call.sigmoid) throw InputError(fmt::format("this model's attention is sigmoid, which has no sum that {} could change; use another edit", e.kind == Kind::off_by_one ? "off-by-one" : "sink-logits"));
          logits_[h] = {e.kind == Kind::off_by_one ? 0.0f : sink_logits_[i][static_cast<size_t>(call.layer) * n_head_ + h]};
          head.learned_sink = logits_[h].data();
          break;
        case Kind::act:
          if (!strong) break;
          calmed_[h] = keys[h];
          head.calmed = calmed_[h];
          head.calm = e.beta;
          break;
        default: head.silent = true;
      }
    }
  }
  if (any) call.edits = heads_;
}

std::vector<std::vector<int>> AttentionEdits::strong_keys(const Edit& edit, const attention::Call& call, const std::function<void(Probe&)>& compute) const {
  std::vector<std::vector<int>> keys(call.n_head);
  if (call.n_stream != 1) return keys;  // groups of heads with masks of their own (MiniMax-M3)
  ColumnMeans columns(kernels_);
  compute(columns);
  for (int h = 0; h < call.n_head; ++h) {
    const double* mean = columns.mean.data() + static_cast<size_t>(h) * call.n_key;
    for (int k = 1; k < call.n_key; ++k)
      if (mean[k] > edit.threshold) keys[h].push_back(k);
    if (!edit.elsewhere) continue;
    // As many that are not strong.
    std::vector<int> others;
    for (int k = 1; k < std::min(call.n_key, call.first_key + call.n_query); ++k)
      if (mean[k] <= edit.threshold) others.push_back(k);
    std::mt19937 random(seed_ + static_cast<uint32_t>(call.layer * call.n_head + h));
    std::ranges::shuffle(others, random);
    keys[h].assign(others.begin(), others.begin() + static_cast<long>(std::min(others.size(), keys[h].size())));
  }
  return keys;
}

}  // namespace sinkscope::intervene
