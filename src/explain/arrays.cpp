#include "explain/arrays.h"

#include <algorithm>
#include <limits>

namespace sinkscope::explain_run {
namespace {

constexpr int kTop = 3;  // largest magnitudes of a token

std::vector<io::ArraySpec> specs(const profile_run::Companion::Size& s) {
  const int64_t n_layer = s.model.n_layer, n_head = s.model.n_head, n_head_kv = s.model.n_head_kv;
  return {{"hidden_norm", "F32", {s.n_prompt, n_layer + 1, s.n_token}},        {"hidden_top", "F32", {s.n_prompt, n_layer + 1, kTop, s.n_token}},
          {"hidden_median", "F32", {s.n_prompt, n_layer + 1, s.n_token}},      {"cos_first", "F32", {s.n_prompt, n_layer + 1, s.n_token}},
          {"key_norm", "F32", {s.n_prompt, n_layer, n_head_kv, s.n_token}},    {"value_norm", "F32", {s.n_prompt, n_layer, n_head_kv, s.n_token}},
          {"column_sum", "F32", {s.n_prompt, n_layer, n_head, s.n_token}}};
}

}  // namespace

ArraysFile::ArraysFile(const std::string& path, const profile_run::Companion::Size& size)
    : n_layer_(size.model.n_layer), n_head_(size.model.n_head), n_head_kv_(size.model.n_head_kv), n_token_(size.n_token),
      file_(path, specs(size), {{"schema", "sinkscope.explain.arrays/1"}, {"model", size.model.name}}) {}

void ArraysFile::write(const char* name, int64_t rows_per_prompt, int64_t index, const float* values, int n) {
  std::vector<float> row(n_token_, std::numeric_limits<float>::quiet_NaN());
  if (values) std::copy_n(values, n, row.data());
  file_.write(name, (n_done_ * rows_per_prompt + index) * n_token_, std::span<const float>(row));
}

void ArraysFile::add(const measure::Recorder& attention, std::span<const measure::HiddenRecord> hidden, std::span<const measure::LayerGeometry> geometry) {
  const int n = attention.n_token();
  for (int l = 0; l <= n_layer_; ++l) {
    const bool named = l < static_cast<int>(hidden.size()) && !hidden[l].norm.empty();
    for (int top = 0; top < kTop; ++top) {
      std::vector<float> magnitude(n);
      for (int i = 0; named && i < n; ++i) magnitude[i] = std::abs(hidden[l].peaks[i][top].value);
      write("hidden_top", int64_t{n_layer_ + 1} * kTop, int64_t{l} * kTop + top, named ? magnitude.data() : nullptr, n);
    }
    for (const auto& [name, values] : {std::pair("hidden_norm", named ? hidden[l].norm.data() : nullptr), {"hidden_median", named ? hidden[l].median.data() : nullptr},
                                       {"cos_first", named ? hidden[l].cos_first.data() : nullptr}})
      write(name, n_layer_ + 1, l, values, n);
  }
  for (int l = 0; l < n_layer_; ++l) {
    const bool seen = l < static_cast<int>(geometry.size()) && !geometry[l].key_norm.empty();
    for (int h = 0; h < n_head_kv_; ++h) {
      const bool has = seen && h < geometry[l].n_head_kv;
      write("key_norm", int64_t{n_layer_} * n_head_kv_, int64_t{l} * n_head_kv_ + h, has ? geometry[l].key_norm.data() + static_cast<size_t>(h) * n : nullptr, n);
      write("value_norm", int64_t{n_layer_} * n_head_kv_, int64_t{l} * n_head_kv_ + h, has ? geometry[l].value_norm.data() + static_cast<size_t>(h) * n : nullptr, n);
    }
    const bool measured = l < static_cast<int>(attention.layers().size());
    for (int h = 0; h < n_head_; ++h)
      write("column_sum", int64_t{n_layer_} * n_head_, int64_t{l} * n_head_ + h,
            measured && h < attention.layers()[l].n_head ? attention.layers()[l].column_sum.data() + static_cast<size_t>(h) * n : nullptr, n);
  }
  ++n_done_;
}

}  // namespace sinkscope::explain_run
