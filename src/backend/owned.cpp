#include "backend/owned.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "sinkscope/error.h"

namespace sinkscope::backend {
namespace {

constexpr uint16_t kF16MinusInfinity = 0xFC00;

attention::Rows rows_from(const attention::Rows& rows, int head) {
  attention::Rows of_head = rows;
  of_head.data = rows.row(0, head, 0);
  of_head.head_stride = of_head.stream_stride = 0;
  return of_head;
}

}  // namespace

// Turns by the distance between where a key was rotated and where it stands.
class OwnedMemory::Turning {
 public:
  explicit Turning(const Rope& rope) : rope_(rope) {}

  // -1: there is nothing to turn.
  int by(int64_t distance) {
    if (distance == 0 || rope_.first.empty()) return -1;
    const auto [at, is_new] = index_.try_emplace(distance, static_cast<int>(index_.size()));
    if (is_new)
      for (const double angle : rope_.angle) {
        const double turn = std::remainder(angle * static_cast<double>(distance), 2 * std::numbers::pi);
        cos_.push_back(static_cast<float>(std::cos(turn)));
        sin_.push_back(static_cast<float>(std::sin(turn)));
      }
    return at->second;
  }
  attention::Turns turns() const { return index_.empty() ? attention::Turns{} : attention::Turns{rope_.first, rope_.second, cos_, sin_}; }

 private:
  const Rope& rope_;
  std::map<int64_t, int> index_;
  std::vector<float> cos_, sin_;
};

// The keys of an operation: rows of each KV head, then the batch. Heads with fewer rows start later.
struct OwnedMemory::Axis {
  int n_row = 0;  // of the head that has most
  int n_key = 0;
  bool ragged = false;
  std::vector<std::vector<attention::Run>> runs;  // [n_head_kv]
  std::vector<std::vector<int64_t>> stands;       // [n_head_kv][row], from the base on; empty where nobody asks
};

OwnedMemory::Axis OwnedMemory::axis_of(const attention::Call& call, const cache::Layer& layer, bool with_stands, Turning& turning) const {
  const int64_t base = memory_.base(), first = memory_.n_past() - base;
  Axis axis;
  for (const cache::Head& head : layer.heads) axis.n_row = std::max(axis.n_row, head.n_row());
  axis.n_key = axis.n_row + call.n_query;
  for (int h = 0; h < call.n_head_kv; ++h) {
    const cache::Head& head = layer.heads[h];
    const int before = axis.n_row - head.n_row();
    axis.ragged |= before > 0;
    std::vector<attention::Run>& runs = axis.runs.emplace_back();
    std::vector<int64_t>& stands = axis.stands.emplace_back();
    // Rows of one turn: neighbours that were neighbours, or any rows of one base that stand where they were.
    const auto add = [&](int row, int n, const cache::Block& block, int at) {
      const int64_t position = block.position(at);
      const int64_t stand = positions_ == Positions::gaps ? position - base : first - head.n_row() + row;
      const int key = before + row;
      const attention::Rows k = block.keys(at), v = block.values(at);
      if (!runs.empty()) runs.back().k.next = k.data, runs.back().v.next = v.data;
      runs.push_back({.begin = key, .end = key + n, .k = k, .v = v,
                      .turn = turning.by(position - memory_.base_of(position) - stand)});
      for (int i = 0; with_stands && i < n; ++i) stands.push_back(stand + block.position(at + i) - position);
    };
    head.over_runs([&](int row, int n, const cache::Block& block, int at) {
      const int32_t begin = block.position(at), end = block.position(at + n - 1);
      const bool neighbours = end - begin == n - 1 || positions_ == Positions::gaps;
      if (neighbours && memory_.base_of(begin) == memory_.base_of(end)) return add(row, n, block, at);
      for (int i = 0; i < n; ++i) add(row + i, 1, block, at + i);
    });
    runs.push_back({.begin = axis.n_row, .end = axis.n_key, .k = rows_from(call.k, h), .v = rows_from(call.v, h)});
  }
  return axis;
}

// What the batch's queries see of the axis, as f16 [n_plane, n_query, n_key]: one plane for all heads, or one for each.
std::vector<uint16_t> OwnedMemory::mask_of(const attention::Call& call, const Axis& axis, int n_plane) const {
  const int64_t first = memory_.n_past() - memory_.base();
  const int group = call.n_head / call.n_head_kv, sees = window(call.layer);
  std::vector<uint16_t> mask(static_cast<size_t>(n_plane) * call.n_query * axis.n_key, 0);
  for (int plane = 0; plane < n_plane; ++plane)
    for (int i = 0; i < call.n_query; ++i) {
      uint16_t* row = mask.data() + (static_cast<size_t>(plane) * call.n_query + i) * axis.n_key;
      const int n_kept = axis.n_key - call.n_query - axis.runs[plane / group].front().begin, before = axis.n_row - n_kept;
      std::fill_n(row, before, kF16MinusInfinity);
      const std::vector<int64_t>& stands = axis.stands[plane / group];
      for (size_t k = 0; k < stands.size(); ++k) {
        const int64_t distance = first + i - stands[k];
        if (sees > 0 && distance >= sees) row[before + k] = kF16MinusInfinity;
        else if (call.max_bias > 0) row[before + k] = ggml_fp32_to_fp16(-static_cast<float>(distance));
      }
      for (int k = 0; k < call.n_query; ++k) row[axis.n_row + k] = call.mask.data ? call.mask.row(0, plane, i)[k] : 0;
    }
  return mask;
}

void OwnedMemory::attend(const ggml_tensor* node, attention::Call call, std::span<Probe* const> probes,
                         const attention::Kernels& kernels, int n_thread, attention::Workspace& work, attention::Way way) {
  if (call.layer < 0 || call.n_stream != 1) throw InputError("this model's attention has parts that owned memory does not know; use it without a policy");
  cache::Layer& layer = memory_.layer(call.layer, call.n_head_kv, call.d_key, call.d_value);
  const bool has_window = window(call.layer) > 0, by_distance = has_window || call.max_bias > 0;
  const Rope& rope = ropes_.of(node, call.layer);
  if (rope.hidden) stay();
  Turning turning(rope);
  const Axis axis = axis_of(call, layer, by_distance, turning);
  const bool same_for_all = !axis.ragged && call.mask.n_head == 1 && std::ranges::all_of(axis.stands, [&](const auto& s) { return s == axis.stands[0]; });
  const int n_plane = same_for_all ? 1 : call.n_head;
  const std::vector<uint16_t> mask = mask_of(call, axis, n_plane);

  attention::Call over = call;
  over.n_key = axis.n_key;
  over.first_key = axis.n_row;
  const std::vector<std::span<const attention::Run>> runs(axis.runs.begin(), axis.runs.end());
  over.runs = runs;
  over.turns = turning.turns();
  over.mask = {.data = mask.data(), .row_stride = static_cast<size_t>(axis.n_key), .head_stride = static_cast<size_t>(call.n_query) * axis.n_key,
               .stream_stride = 0, .n_head = n_plane, .n_stream = 1};
  // Layers with a window keep it and choose nothing.
  std::vector<Probe*> seeing(probes.begin(), probes.end());
  const bool observed = observer_ && !has_window;
  if (observed) seeing.push_back(&*observer_);
  attention::attend(over, seeing, kernels, n_thread, work, way);

  if (observes_queries_ && !has_window) observe_queries(call, layer, rope);
  keep(call, layer, kernels);
  if (observed) observer_->add_to(layer);
}

void OwnedMemory::stay() {
  if (positions_ == Positions::cache)
    throw InputError("this model changes its queries after RoPE, so that kept keys must stand where they were; give --positions gaps");
  positions_ = Positions::gaps;
  memory_.hold_base();
}

void OwnedMemory::observe_queries(const attention::Call& call, cache::Layer& layer, const Rope& rope) const {
  if (rope.hidden) throw InputError("this model changes its queries after RoPE, so that they cannot be foreseen; use another policy");
  if (!layer.queries) layer.queries.emplace(call.n_head, call.d_key, call.scale, rope);
  const auto first = static_cast<double>(memory_.n_past() - memory_.base());
  for (int h = 0; h < call.n_head; ++h)
    for (int i = 0; i < call.n_query; ++i) layer.queries->add(h, first + i, call.query(0, h, i));
}

void OwnedMemory::keep(const attention::Call& call, cache::Layer& layer, const attention::Kernels& kernels) {
  std::vector<float> key(call.d_key), value(call.d_value);
  for (int h = 0; h < call.n_head_kv; ++h)
    for (int i = 0; i < call.n_query; ++i) {
      kernels.decode_rows(rows_from(call.k, h), 0, 1, i, 1, call.d_key, call.d_key, key.data());
      kernels.decode_rows(rows_from(call.v, h), 0, 1, i, 1, call.d_value, call.d_value, value.data());
      layer.heads[h].append(static_cast<int32_t>(memory_.n_past() + i), key.data(), value.data());
    }
}

}  // namespace sinkscope::backend
