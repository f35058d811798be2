#include "cache/observer.h"

#include <algorithm>

namespace sinkscope::cache {

void Observer::begin(const AttentionShape& shape) {
  shape_ = shape;
  columns_.begin(shape);
  mass_.assign(static_cast<size_t>(shape.n_head_kv) * shape.n_key, 0);
}

void Observer::see(const Tile& tile) {
  const int skipped = std::clamp(first_query() - tile.first_query, 0, tile.n_row);
  Tile seen = tile;
  seen.weights += skipped * seen.stride;
  seen.n_row -= skipped;
  if (seen.n_row > 0) columns_.see(seen);
}

void Observer::merge(int, int first_head, int n_head) {
  const int group = shape_.n_head / shape_.n_head_kv;
  for (int h = 0; h < n_head; ++h) columns_.take(h, shape_.n_key, mass_.data() + static_cast<size_t>((first_head + h) / group) * shape_.n_key, nullptr);
}

void Observer::add_to(Layer& layer) {
  const int n_query = shape_.n_query - first_query(), group = shape_.n_head / shape_.n_head_kv;
  for (size_t h = 0; h < layer.heads.size(); ++h) {
    Head& head = layer.heads[h];
    const double* mass = mass_.data() + (h + 1) * shape_.n_key - head.n_row();
    std::vector<Observation>& seen = head.observations();
    if (seen.empty() || (!observe_.all && seen.back().n_query + n_query > observe_.together())) seen.emplace_back();
    seen.back().mass.resize(head.n_row());
    seen.back().n_query += n_query;
    for (int i = 0; i < head.n_row(); ++i) seen.back().mass[i] += static_cast<float>(mass[i] / group);
    // Older batches go as soon as the newer ones have queries enough.
    int n = 0;
    auto first = seen.end();
    while (!observe_.all && first != seen.begin() && n < observe_.n_last) n += (--first)->n_query;
    if (!observe_.all) seen.erase(seen.begin(), first);
  }
}

}  // namespace sinkscope::cache
