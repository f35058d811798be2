#include "measure/recorder.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "sinkscope/error.h"

namespace sinkscope::measure {
namespace {

constexpr int kShortRun = 8;  // keys

}  // namespace

float LayerRecord::alpha(int head, int key, int n_token) const {
  return column_sum[static_cast<size_t>(head) * n_token + key] / static_cast<float>(std::max(key_n_row(head, key, n_token), 1u));
}

std::vector<int> LayerRecord::sinks(int head, int n_token, float epsilon, int min_rows) const {
  std::vector<int> found;
  for (int k = 0; k < n_token; ++k)
    if (static_cast<int>(key_n_row(head, k, n_token)) >= min_rows && alpha(head, k, n_token) > epsilon) found.push_back(k);
  return found;
}

void LayerRecord::add_band_pairs(const Bands& bands, std::span<double> n_pair) const {
  for (size_t i = 0; i < rows.size(); ++i) {
    double* of_query = n_pair.data() + static_cast<size_t>(bands.of(static_cast<int>(i))) * bands.n;
    for (int b = 0; b < bands.n; ++b) of_query[b] += std::max(0, std::min(rows[i].end, bands.begin(b + 1)) - std::max(rows[i].begin, bands.begin(b)));
  }
}

Recorder::Recorder(const attention::Kernels& kernels, Keep keep)
    : kernels_(kernels), keep_(std::move(keep)), columns_(kernels) {
  for (int b = 0; keep_.bands.n > 0 && b <= keep_.bands.n; ++b) band_begin_.push_back(keep_.bands.begin(b));
}

void Recorder::start(int n_token) {
  n_token_ = n_token;
  for (LayerRecord& layer : layers_) layer.n_head = layer.n_row = 0;
  for (const auto& key : keep_.maps) maps_[key].assign(static_cast<size_t>(n_token) * n_token, 0);
}

void Recorder::begin(const AttentionShape& shape) {
  shape_ = &shape;
  if (shape.layer >= static_cast<int>(layers_.size())) layers_.resize(shape.layer + 1);
  LayerRecord& layer = layers_[shape.layer];
  const int n_head = shape.n_stream * shape.n_head;
  const size_t n = static_cast<size_t>(n_head) * n_token_;
  if (layer.n_head == 0) {
    layer.n_head = n_head;
    layer.learned_sink = shape.learned_sink;
    layer.column_sum.assign(n, 0);
    layer.column_max.assign(n, 0);
    layer.column_n_row.assign(shape.n_plane_stream * shape.n_plane_head > 1 ? n : n_token_, 0);
    layer.entropy.assign(n, 0);
    layer.strongest.assign(n, -1);
    layer.first_mass_row = keep_.all_first_mass ? 0 : std::max(0, n_token_ - kLastRows);
    layer.first_mass.assign(layer.first_mass_at(n_head, layer.first_mass_row, n_token_), 0);
    layer.learned_sink_mass.assign(shape.learned_sink ? n : 0, 0);
    layer.rows.assign(n_token_, RowView{});
    layer.band_sum.assign(static_cast<size_t>(n_head) * keep_.bands.n * keep_.bands.n, 0);
  }
  if (layer.n_head != n_head) throw InternalError("a layer changed its number of heads");
  if (!one_slot()) columns_.begin(shape);
  band_slots_.assign(static_cast<size_t>(shape.n_slot) * keep_.bands.n * keep_.bands.n, 0);
}

void Recorder::see(const Tile& tile) {
  LayerRecord& layer = layers_[shape_->layer];
  if (one_slot()) add_columns(tile, layer);
  else columns_.see(tile);
  if (keep_.bands.n > 0) add_bands(tile, layer);
  for (int r = 0; r < tile.n_row; ++r) see_row(tile, r, layer);
}

void Recorder::see_row(const Tile& tile, int r, LayerRecord& layer) {
  const int position = layer.n_row + tile.first_query + r, head = tile.stream * shape_->n_head + tile.head;
  if (position >= n_token_) return;
  const size_t at = static_cast<size_t>(head) * n_token_ + position;
  const float* weights = tile.row(r);
  const int n_key = tile.key_end - tile.key_begin;
  layer.entropy[at] = tile.entropy[r];
  const int strongest = kernels_.strongest(weights, n_key, tile.largest_weight[r]);
  layer.strongest[at] = strongest < 0 ? -1 : tile.key_begin + strongest;
  if (layer.learned_sink) layer.learned_sink_mass[at] = tile.learned_sink_mass[r];
  if (const auto map = maps_.find({shape_->layer, head}); map != maps_.end())
    std::copy_n(weights, std::min(n_key, n_token_ - tile.key_begin),
                map->second.data() + static_cast<size_t>(position) * n_token_ + tile.key_begin);
  if (position < layer.first_mass_row) return;
  float* first_mass = layer.first_mass.data() + layer.first_mass_at(head, position, n_token_);
  float mass = 0;
  for (int i = 0, key = 0; i < kNumFirst; ++i) {
    for (; key < kFirstKeys[i]; ++key)
      if (key >= tile.key_begin && key < tile.key_end) mass += weights[key - tile.key_begin];
    first_mass[i] = mass;
  }
}

// A head that has one slot alone needs no other place for its sums than the record.
void Recorder::add_columns(Tile tile, LayerRecord& layer) const {
  const size_t at = static_cast<size_t>(tile.stream * shape_->n_head + tile.head) * n_token_;
  tile.key_end = std::min(tile.key_end, n_token_);
  if (tile.key_begin < tile.key_end) kernels_.add_columns(tile, layer.column_sum.data() + at, layer.column_max.data() + at);
}

// Key bands are runs of a row: each is summed while the row is in the cache. Runs of a few keys are not worth a kernel.
void Recorder::add_bands(const Tile& tile, const LayerRecord& layer) {
  const Bands& bands = keep_.bands;
  float* sums = band_slots_.data() + static_cast<size_t>(tile.slot) * bands.n * bands.n;
  const int key_end = std::min(tile.key_end, n_token_);
  for (int r = 0; r < tile.n_row; ++r) {
    const int position = layer.n_row + tile.first_query + r;
    if (position >= n_token_) return;
    const RowView& row = shape_->rows[static_cast<size_t>(shape_->plane(tile.stream, tile.head)) * shape_->n_query + tile.first_query + r];
    int begin = std::max(row.begin, tile.key_begin);
    const int last = std::min(row.end, key_end);
    if (begin >= last) continue;
    const float* weights = tile.row(r) - tile.key_begin;
    float* of_query = sums + static_cast<size_t>(bands.of(position)) * bands.n;
    for (int band = bands.of(begin); begin < last; ++band) {
      const int end = std::min(band_begin_[band + 1], last);
      if (end - begin >= kShortRun) of_query[band] += kernels_.sum(weights + begin, end - begin);
      else of_query[band] = std::accumulate(weights + begin, weights + end, of_query[band]);
      begin = end;
    }
  }
}

void Recorder::take_bands(int head_of_group, float* sums) {
  const size_t n = static_cast<size_t>(keep_.bands.n) * keep_.bands.n;
  float* slot = band_slots_.data() + static_cast<size_t>(head_of_group) * shape_->slots_per_head * n;
  for (int part = 0; part < shape_->slots_per_head; ++part, slot += n)
    for (size_t i = 0; i < n; ++i) sums[i] += std::exchange(slot[i], 0.0f);
}

void Recorder::merge(int stream, int first_head, int n_head) {
  LayerRecord& layer = layers_[shape_->layer];
  const size_t n_band_sum = static_cast<size_t>(keep_.bands.n) * keep_.bands.n;
  for (int h = 0; h < n_head && n_band_sum > 0; ++h) take_bands(h, layer.band_sum.data() + (stream * shape_->n_head + first_head + h) * n_band_sum);
  if (one_slot()) return;
  const int n_key = std::min(shape_->n_key, n_token_);
  for (int h = 0; h < n_head; ++h) {
    const size_t at = static_cast<size_t>(stream * shape_->n_head + first_head + h) * n_token_;
    columns_.take(h, n_key, layer.column_sum.data() + at, layer.column_max.data() + at);
  }
}

void Recorder::end() {
  LayerRecord& layer = layers_[shape_->layer];
  const int n_key = std::min(shape_->n_key, n_token_);
  const int n_mask = static_cast<int>(layer.column_n_row.size()) / std::max(n_token_, 1);
  for (int m = 0; m < n_mask; ++m) {
    const size_t plane = shape_->plane(m / shape_->n_head, m % shape_->n_head);
    const uint32_t* seen = shape_->key_n_row.data() + plane * shape_->n_key;
    for (int k = 0; k < n_key; ++k) layer.column_n_row[static_cast<size_t>(m) * n_token_ + k] += seen[k];
  }
  for (int i = 0; i < shape_->n_query; ++i, ++layer.n_row)
    if (layer.n_row < n_token_) layer.rows[layer.n_row] = shape_->rows[i];
}

}  // namespace sinkscope::measure
