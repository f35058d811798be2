#include "backend/owned.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "sinkscope/error.h"

namespace sinkscope::backend {
namespace {

constexpr uint16_t kF16MinusInfinity = 0xFC00;

// The keys of an operation: rows of each KV head, then the batch. Heads with fewer rows start later.
struct Axis {
  int n_row = 0;  // of the head that has most
  int n_key = 0;
  std::vector<std::vector<attention::Run>> runs;      // [n_head_kv]
  std::vector<std::span<const attention::Run>> spans;
  std::vector<std::vector<int64_t>> stands;           // [n_head_kv][row] position, counted from the base
};

// Turns by the distance between where a key was rotated and where it stands.
class Turning {
 public:
  explicit Turning(const Rope* rope) : rope_(rope) {}
  int by(int64_t distance) {
    if (distance == 0) return -1;
    const auto [at, is_new] = index_.try_emplace(distance, static_cast<int>(index_.size()));
    if (is_new)
      for (const double angle : rope_->angle) {
        const double turn = std::remainder(angle * static_cast<double>(distance), 2 * M_PI);
        cos_.push_back(static_cast<float>(std::cos(turn)));
        sin_.push_back(static_cast<float>(std::sin(turn)));
      }
    return at->second;
  }
  attention::Turns turns() const {
    return index_.empty() ? attention::Turns{} : attention::Turns{rope_->first, rope_->second, cos_, sin_};
  }

 private:
  const Rope* rope_;
  std::map<int64_t, int> index_;
  std::vector<float> cos_, sin_;
};

attention::Rows rows_from(const attention::Rows& rows, int head) {
  attention::Rows of_head = rows;
  of_head.data = rows.row(0, head, 0);
  of_head.head_stride = of_head.stream_stride = 0;
  return of_head;
}

}  // namespace

const Rope& OwnedMemory::rope(const ggml_tensor* node, int layer) {
  const auto [at, is_new] = ropes_.try_emplace(layer);
  if (is_new)
    if (const ggml_tensor* found = rope_of(node->src[0])) at->second = read_rope(found);
  return at->second;
}

void OwnedMemory::attend(const ggml_tensor* node, attention::Call call, std::span<Probe* const> probes,
                         const attention::Kernels& kernels, int n_thread, attention::Workspace& work, attention::Way way) {
  if (call.layer < 0 || call.n_stream != 1) throw InputError("this model's attention has parts that owned memory does not know; use it without a policy");
  cache::Layer& layer = memory_.layer(call.layer, call.n_head_kv, call.d_key, call.d_value);
  const int64_t first = memory_.n_past() - memory_.base();  // where the batch starts
  const int n_new = call.n_query;
  const Rope& turn_by = rope(node, call.layer);
  Turning turning(&turn_by);
  const int sees = window(call.layer);

  Axis axis;
  for (const cache::Head& head : layer.heads) axis.n_row = std::max(axis.n_row, head.n_row());
  axis.n_key = axis.n_row + n_new;
  for (int h = 0; h < call.n_head_kv; ++h) {
    const cache::Head& head = layer.heads[h];
    const int before = axis.n_row - head.n_row();
    std::vector<attention::Run>& runs = axis.runs.emplace_back();
    std::vector<int64_t>& stands = axis.stands.emplace_back();
    head.over_runs([&](int row, int n, cache::Block& block, int at) {
      for (int i = 0; i < n; ++i) {
        const int64_t position = block.position(at + i), rotated = position - memory_.base_of(position);
        const int64_t stand = positions_ == Positions::cache ? first - head.n_row() + row + i : position - memory_.base();
        stands.push_back(stand);
        if (rotated != stand && turn_by.first.empty() && positions_ == Positions::cache && call.max_bias == 0)
          throw InputError("this model has no RoPE that keys could be turned by, so they must stay where they were; give --positions gaps");
        const int turn = turn_by.first.empty() ? -1 : turning.by(rotated - stand);
        if (i > 0 && runs.back().turn == turn) {
          ++runs.back().end;
          continue;
        }
        const int key = before + row + i;
        runs.push_back({.begin = key, .end = key + 1,
                        .k = {.data = block.key(at + i), .key_stride = layer.shape.key_bytes(), .element = layer.shape.element()},
                        .v = {.data = block.value(at + i), .key_stride = layer.shape.value_bytes(), .element = layer.shape.element()},
                        .turn = turn});
      }
    });
    runs.push_back({.begin = axis.n_row, .end = axis.n_key, .k = rows_from(call.k, h), .v = rows_from(call.v, h)});
  }
  for (const auto& runs : axis.runs) axis.spans.push_back(runs);

  const bool ragged = std::any_of(layer.heads.begin(), layer.heads.end(), [&](const cache::Head& h) { return h.n_row() != axis.n_row; });
  const bool same_stands = !ragged && std::all_of(axis.stands.begin(), axis.stands.end(), [&](const auto& s) { return s == axis.stands[0]; });
  const int n_plane = same_stands && call.mask.n_head == 1 ? 1 : call.n_head, group = call.n_head / call.n_head_kv;
  std::vector<uint16_t> mask(static_cast<size_t>(n_plane) * n_new * axis.n_key, kF16MinusInfinity);
  for (int plane = 0; plane < n_plane; ++plane)
    for (int i = 0; i < n_new; ++i) {
      uint16_t* row = mask.data() + (static_cast<size_t>(plane) * n_new + i) * axis.n_key;
      const std::vector<int64_t>& stands = axis.stands[plane / group];
      uint16_t* kept = row + axis.n_row - stands.size();
      for (size_t k = 0; k < stands.size(); ++k) {
        const int64_t distance = first + i - stands[k];
        if (sees > 0 && distance >= sees) continue;
        kept[k] = call.max_bias > 0 ? ggml_fp32_to_fp16(-static_cast<float>(distance)) : 0;
      }
      for (int k = 0; k < n_new; ++k) row[axis.n_row + k] = call.mask.data ? call.mask.row(0, plane, i)[k] : 0;
    }

  attention::Call over = call;
  over.n_key = axis.n_key;
  over.runs = axis.spans;
  over.turns = turning.turns();
  over.mask = {.data = mask.data(), .row_stride = static_cast<size_t>(axis.n_key), .head_stride = static_cast<size_t>(n_new) * axis.n_key,
               .stream_stride = 0, .n_head = n_plane, .n_stream = 1};
  // Layers with a window keep it and choose nothing.
  std::vector<Probe*> seeing(probes.begin(), probes.end());
  const bool observed = observer_ && sees == 0;
  if (observed) seeing.push_back(&*observer_);
  attention::attend(over, seeing, kernels, n_thread, work, way);

  std::vector<float> key(call.d_key), value(call.d_value);
  for (int h = 0; h < call.n_head_kv; ++h)
    for (int i = 0; i < n_new; ++i) {
      kernels.decode_rows(rows_from(call.k, h), 0, 1, i, 1, call.d_key, call.d_key, key.data());
      kernels.decode_rows(rows_from(call.v, h), 0, 1, i, 1, call.d_value, call.d_value, value.data());
      memory_.append(layer, h, static_cast<int32_t>(memory_.n_past() + i), key.data(), value.data());
    }
  if (observed) observer_->add_to(layer);
}

}  // namespace sinkscope::backend
