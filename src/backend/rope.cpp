#include "backend/rope.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <numbers>

#include <ggml-backend.h>

#include "sinkscope/error.h"

namespace sinkscope::backend {
namespace {

enum Source { kInput, kPositions, kFactors };

// The operation at one position on all unit vectors: [d, d], row j being what becomes of component j.
std::vector<float> rotated_units(const ggml_tensor* rope, int position) {
  const int d = static_cast<int>(rope->ne[0]);
  const auto per_token = static_cast<int>(rope->src[kPositions]->ne[0] / rope->src[kInput]->ne[2]);  // 4 with sections
  const size_t bytes = (size_t{2} * d * d + static_cast<size_t>(d) * per_token) * sizeof(float) + (64 << 10);
  const std::unique_ptr<ggml_context, void (*)(ggml_context*)> context(
      ggml_init({.mem_size = bytes + ggml_graph_overhead(), .mem_buffer = nullptr, .no_alloc = false}), &ggml_free);
  ggml_tensor* units = ggml_new_tensor_3d(context.get(), GGML_TYPE_F32, d, 1, d);
  ggml_tensor* positions = ggml_new_tensor_1d(context.get(), GGML_TYPE_I32, static_cast<int64_t>(d) * per_token);
  auto* values = static_cast<float*>(units->data);
  for (int i = 0; i < d * d; ++i) values[i] = i / d == i % d ? 1.0f : 0.0f;
  for (int i = 0; i < d * per_token; ++i) static_cast<int32_t*>(positions->data)[i] = position;
  // Any rope, which then is made into this one.
  ggml_tensor* out = ggml_rope(context.get(), units, ggml_view_1d(context.get(), positions, d, 0), d, 0);
  std::memcpy(out->op_params, rope->op_params, sizeof out->op_params);
  out->src[kPositions] = positions;
  out->src[kFactors] = rope->src[kFactors];
  ggml_cgraph* graph = ggml_new_graph(context.get());
  ggml_build_forward_expand(graph, out);
  const std::unique_ptr<ggml_backend, void (*)(ggml_backend_t)> cpu(
      ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr), &ggml_backend_free);
  if (!cpu || ggml_backend_graph_compute(cpu.get(), graph) != GGML_STATUS_SUCCESS) throw InternalError("ggml could not compute a rotation");
  const auto* result = static_cast<const float*>(out->data);
  return {result, result + d * d};
}

}  // namespace

const ggml_tensor* rope_of(const ggml_tensor* t, bool& hidden) {
  if (!t) return nullptr;
  switch (t->op) {
    case GGML_OP_ROPE: return t;
    case GGML_OP_NONE:
    case GGML_OP_MUL_MAT:  // the projection: what lies before was not rotated for this layer
    case GGML_OP_MUL_MAT_ID: return nullptr;
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE:
    case GGML_OP_CONT:
    case GGML_OP_SCALE:
    case GGML_OP_RMS_NORM:  // a turn changes no length
    case GGML_OP_L2_NORM: return rope_of(t->src[0], hidden);
    case GGML_OP_MUL:
      if (t->src[1]->ne[0] == 1) return rope_of(t->src[0], hidden);  // one factor for a whole row
      break;
    default: break;
  }
  for (const ggml_tensor* source : t->src)
    if (const ggml_tensor* found = rope_of(source, hidden)) {
      hidden = true;
      return found;
    }
  return nullptr;
}

Rope read_rope(const ggml_tensor* rope) {
  const int d = static_cast<int>(rope->ne[0]);
  Rope found;
  std::vector<float> at = rotated_units(rope, 1);
  std::vector<bool> paired(d);
  for (int j = 0; j < d; ++j)
    for (int i = j + 1; i < d && !paired[j]; ++i)
      if (at[j * d + i] != 0) {
        found.first.push_back(j);
        found.second.push_back(i);
        found.angle.push_back(0);
        paired[j] = paired[i] = true;
      }
  // The angle at one position says the one at 8 times as many to within a turn, and that one says it more exactly.
  for (int position = 1; position <= 4096; position *= 8) {
    if (position > 1) at = rotated_units(rope, position);
    for (size_t p = 0; p < found.first.size(); ++p) {
      const float* row = at.data() + found.first[p] * d;
      const double angle = std::atan2(row[found.second[p]], row[found.first[p]]), expected = found.angle[p] * position;
      constexpr double kTurn = 2 * std::numbers::pi;
      found.angle[p] = (angle + kTurn * std::round((expected - angle) / kTurn)) / position;
    }
  }
  return found;
}

const Rope& Ropes::of(const ggml_tensor* attention, int layer) {
  const auto [at, is_new] = by_layer_.try_emplace(layer);
  if (is_new) {
    bool hidden = false;
    const ggml_tensor* found = rope_of(attention->src[0], hidden);
    if (found && !hidden) at->second = read_rope(found);
    at->second.hidden = hidden;
  }
  return at->second;
}

}  // namespace sinkscope::backend
