#include "backend/operation.h"

#include <charconv>
#include <cstring>
#include <string_view>

#include <fmt/format.h>
#include <ggml-impl.h>

namespace sinkscope::backend {
namespace {

enum Source { kQuery, kKeys, kValues, kMask, kLearnedSink };

std::optional<int> number_after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  int number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end == name.data()) return std::nullopt;
  return number;
}

attention::Rows rows_of(const ggml_tensor* t) {
  attention::Rows rows{.data = static_cast<const std::byte*>(t->data), .key_stride = t->nb[1], .head_stride = t->nb[2],
                       .stream_stride = t->nb[3]};
  switch (t->type) {
    case GGML_TYPE_F32: rows.element = attention::Element::f32; break;
    case GGML_TYPE_F16: rows.element = attention::Element::f16; break;
    case GGML_TYPE_BF16: rows.element = attention::Element::bf16; break;
    case GGML_TYPE_Q8_0: rows.element = attention::Element::q8_0; break;
    case GGML_TYPE_Q4_0: rows.element = attention::Element::q4_0; break;
    default:
      rows.element = attention::Element::coded;
      rows.decode = ggml_get_type_traits(t->type)->to_float;
  }
  return rows;
}

// llama.cpp rounds keys and values of an F32 cache to F16 before the fused operation. What was rounded is read instead,
// where it lies in the cache and so still stands.
const ggml_tensor* unrounded(const ggml_tensor* t) {
  if (t->op != GGML_OP_CPY || t->type != GGML_TYPE_F16 || t->src[0]->type != GGML_TYPE_F32) return t;
  const ggml_tensor* from = t->src[0];
  const ggml_tensor* root = from->view_src ? from->view_src : from;
  const bool in_cache = std::string_view(root->name).starts_with("cache_");
  return in_cache && from->nb[0] == sizeof(float) && ggml_are_same_shape(from, t) ? from : t;
}

bool decodable(const ggml_tensor* t) {
  return t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float != nullptr;
}

}  // namespace

std::optional<std::string> reason_against(const ggml_tensor* node) {
  const ggml_tensor *q = node->src[kQuery], *k = node->src[kKeys], *v = node->src[kValues], *mask = node->src[kMask];
  if (q->type != GGML_TYPE_F32 || q->nb[0] != sizeof(float)) return fmt::format("queries of type {}", ggml_type_name(q->type));
  for (const ggml_tensor* t : {k, v}) {
    if (!decodable(t)) return fmt::format("keys or values of type {}", ggml_type_name(t->type));
    if (t->nb[0] != ggml_type_size(t->type)) return "keys or values whose rows are not contiguous";
    if (t->ne[3] != q->ne[3]) return "streams of queries and keys that differ in number";
  }
  if (k->ne[2] != v->ne[2]) return "keys and values with different numbers of heads";
  if (k->ne[2] == 0 || q->ne[2] % k->ne[2] != 0) return "query heads that are no multiple of the key heads";
  if (mask && (mask->type != GGML_TYPE_F16 || mask->ne[0] < k->ne[1] || mask->ne[1] < q->ne[1])) return "a mask of another type or shape";
  const ggml_tensor* sink = node->src[kLearnedSink];
  if (sink && sink->type != GGML_TYPE_F32) return "learned sinks that are not F32";
  if (!ggml_is_contiguous(node)) return "an output that is not contiguous";
  return std::nullopt;
}

attention::Call call_of(const ggml_tensor* node) {
  const ggml_tensor *q = node->src[kQuery], *mask = node->src[kMask];
  const ggml_tensor *k = unrounded(node->src[kKeys]), *v = unrounded(node->src[kValues]);
  attention::Call call;
  call.n_stream = static_cast<int>(q->ne[3]);
  call.n_query = static_cast<int>(q->ne[1]);
  call.n_key = static_cast<int>(k->ne[1]);
  call.n_head = static_cast<int>(q->ne[2]);
  call.n_head_kv = static_cast<int>(k->ne[2]);
  call.d_key = static_cast<int>(k->ne[0]);
  call.d_value = static_cast<int>(v->ne[0]);
  call.q = static_cast<const float*>(q->data);
  call.q_query_stride = q->nb[1] / sizeof(float);
  call.q_head_stride = q->nb[2] / sizeof(float);
  call.q_stream_stride = q->nb[3] / sizeof(float);
  call.k = rows_of(k);
  call.v = rows_of(v);
  if (mask)
    call.mask = {.data = static_cast<const uint16_t*>(mask->data), .row_stride = mask->nb[1] / sizeof(uint16_t),
                 .head_stride = mask->nb[2] / sizeof(uint16_t), .stream_stride = mask->nb[3] / sizeof(uint16_t),
                 .n_head = static_cast<int>(mask->ne[2]), .n_stream = static_cast<int>(mask->ne[3])};
  if (const ggml_tensor* sink = node->src[kLearnedSink]) call.learned_sink = static_cast<const float*>(sink->data);
  std::memcpy(&call.scale, &node->op_params[0], sizeof(float));
  std::memcpy(&call.max_bias, &node->op_params[1], sizeof(float));
  std::memcpy(&call.soft_cap, &node->op_params[2], sizeof(float));
  call.out = static_cast<float*>(node->data);
  return call;
}

int layer_of(const ggml_cgraph* graph, int index) {
  const ggml_tensor* node = graph->nodes[index];
  constexpr int kNearby = 4;  // the views of the output follow the operation directly
  for (int i = index + 1; i < std::min(index + 1 + kNearby, graph->n_nodes); ++i) {
    const ggml_tensor* next = graph->nodes[i];
    if (next->view_src != node && next->src[0] != node) continue;
    for (const char* prefix : {"kqv_out-", "fattn_mla-"})
      if (const auto layer = number_after(next->name, prefix)) return *layer;
  }
  for (const ggml_tensor* k = node->src[kKeys]; k; k = k->view_src ? k->view_src : k->src[0])
    if (const auto layer = number_after(k->name, "cache_k_l")) return *layer;
  return -1;
}

}  // namespace sinkscope::backend
