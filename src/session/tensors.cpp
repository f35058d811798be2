#include "session/tensors.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <utility>

#include <ggml-backend.h>

namespace sinkscope::session {
namespace {

// "l_out-7" is l_out of layer 7.
std::pair<std::string_view, int> name_and_layer(const char* whole) {
  const std::string_view name = whole;
  const size_t dash = name.rfind('-');
  int layer = -1;
  if (dash == std::string_view::npos) return {name, -1};
  const char* end = name.data() + name.size();
  const auto [read, error] = std::from_chars(name.data() + dash + 1, end, layer);
  return error == std::errc() && read == end && layer >= 0 ? std::pair(name.substr(0, dash), layer) : std::pair(name, -1);
}

}  // namespace

bool Tensors::callback(ggml_tensor* tensor, bool ask, void* data) {
  auto& self = *static_cast<Tensors*>(data);
  if (self.failure) return !ask;
  try {
    if (ask) return self.wanted(tensor);
    self.show(tensor);
  } catch (...) {  // llama.cpp does not expect to be left this way
    self.failure = std::current_exception();
  }
  return !ask;
}

bool Tensors::wanted(const ggml_tensor* tensor) const {
  const auto [name, layer] = name_and_layer(tensor->name);
  const bool readable = tensor->type == GGML_TYPE_F32 || tensor->type == GGML_TYPE_I32;
  return readable && tensor->nb[0] == ggml_type_size(tensor->type) && std::ranges::any_of(hooks, [&, n = name, l = layer](TensorHook* h) { return h->wants(n, l); });
}

void Tensors::show(ggml_tensor* tensor) {
  const auto [name, layer] = name_and_layer(tensor->name);
  TensorView view{.name = name, .layer = layer, .data = static_cast<std::byte*>(tensor->data), .integers = tensor->type == GGML_TYPE_I32,
                  .nth = n_seen_[{std::string(name), layer}]++};
  std::copy_n(tensor->ne, 4, view.n);
  std::copy_n(tensor->nb, 4, view.stride);
  const ggml_backend_buffer_t buffer = tensor->view_src ? tensor->view_src->buffer : tensor->buffer;
  const bool on_host = ggml_backend_buffer_is_host(buffer);
  std::vector<std::byte> copy(on_host ? 0 : ggml_nbytes(tensor));
  if (!on_host) {
    ggml_backend_tensor_get(tensor, copy.data(), 0, copy.size());
    view.data = copy.data();
  }
  for (TensorHook* hook : hooks)
    if (hook->wants(name, layer)) hook->see(view);
  if (!on_host) ggml_backend_tensor_set(tensor, copy.data(), 0, copy.size());
}

}  // namespace sinkscope::session
