#include "plugin/cell_recorder.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

namespace sinkscope::plugin {

void CellRecorder::begin(const AttentionShape& shape) {
  mutex_.lock();
  recording_ = std::this_thread::get_id();
  shape_ = &shape;
  if (!one_slot()) columns_.begin(shape);
  slot_entropy_.assign(shape.n_slot, 0);
  Layer& layer = layers_[shape.layer];
  layer.column_sum.resize(std::max<size_t>(layer.column_sum.size(), shape.n_head));
  layer.entropy_sum.resize(layer.column_sum.size());
  layer.n_row.resize(std::max<size_t>(layer.n_row.size(), shape.n_key));
  for (std::vector<double>& head : layer.column_sum) head.resize(layer.n_row.size());
}

void CellRecorder::see(const Tile& tile) {
  if (one_slot()) add_rows(tile);
  else columns_.see(tile);
  for (int r = 0; r < tile.n_row; ++r) slot_entropy_[tile.slot] += tile.entropy[r];
}

// A head that has one slot alone needs no other place for its sums.
void CellRecorder::add_rows(const Tile& tile) {
  double* sum = layers_.at(shape_->layer).column_sum[tile.head].data() + tile.key_begin;
  for (int r = 0; r < tile.n_row; ++r)
    for (int k = 0; k < tile.key_end - tile.key_begin; ++k) sum[k] += double{tile.row(r)[k]};
}

void CellRecorder::merge(int, int first_head, int n_head) {
  Layer& layer = layers_[shape_->layer];
  for (int h = 0; h < n_head; ++h) {
    if (!one_slot()) columns_.take(h, shape_->n_key, layer.column_sum[first_head + h].data(), nullptr);
    for (int part = 0; part < shape_->slots_per_head; ++part)
      layer.entropy_sum[first_head + h] += std::exchange(slot_entropy_[h * shape_->slots_per_head + part], 0);
  }
}

void CellRecorder::end() {
  Layer& layer = layers_[shape_->layer];
  for (int s = 0; s < shape_->n_stream; ++s)
    for (int k = 0; k < shape_->n_key; ++k)
      layer.n_row[k] += shape_->key_n_row[static_cast<size_t>(shape_->plane(s, 0)) * shape_->n_key + k];
  layer.n_query += shape_->n_query * shape_->n_stream;
  abandon();
}

void CellRecorder::abandon() {
  if (recording_ != std::this_thread::get_id()) return;
  recording_ = std::thread::id();
  mutex_.unlock();
}

std::string CellRecorder::to_json() {
  using Json = nlohmann::ordered_json;
  const auto rounded = [](double v) { return std::isfinite(v) ? Json(std::round(v * 1e6) / 1e6) : Json(nullptr); };
  const std::lock_guard lock(mutex_);
  Json json = {{"schema", "sinkscope.cells/1"},
               {"note", layers_.empty()
                            ? "no attention was seen: start the program with flash attention on (-fa on); with -fa auto, "
                              "llama.cpp leaves it off as soon as another device than the CPU would compute it"
                            : "by cell of llama.cpp's cache: which token and position a cell held is not known here; cell 0 "
                              "is the first token where a program runs one sequence from the start"},
               {"isa", kernels_.name}};
  json["layers"] = Json::array();
  for (const auto& [index, layer] : layers_) {
    size_t n_cell = layer.n_row.size();
    while (n_cell > 0 && layer.n_row[n_cell - 1] == 0) --n_cell;
    Json one = {{"layer", index}, {"n_query", layer.n_query}, {"heads", Json::array()}, {"alpha_by_cell", Json::array()}};
    for (size_t h = 0; h < layer.column_sum.size(); ++h)
      one["heads"].push_back({{"head", h}, {"alpha_cell0", rounded(n_cell ? layer.column_sum[h][0] / layer.n_row[0] : NAN)},
                              {"entropy", rounded(layer.entropy_sum[h] / static_cast<double>(layer.n_query))}});
    for (size_t k = 0; k < n_cell; ++k) {
      double alpha = 0;
      for (const std::vector<double>& head : layer.column_sum) alpha += head[k] / layer.n_row[k] / static_cast<double>(layer.column_sum.size());
      one["alpha_by_cell"].push_back(rounded(alpha));
    }
    json["layers"].push_back(std::move(one));
  }
  return json.dump(1) + "\n";
}

}  // namespace sinkscope::plugin
