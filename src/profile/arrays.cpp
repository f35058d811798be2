#include "profile/arrays.h"

#include <algorithm>
#include <limits>
#include <span>

namespace sinkscope::profile_run {
namespace {

using measure::kNumFirst;
using measure::LayerRecord;

std::vector<io::ArraySpec> specs(const ArraysFile::Size& s, size_t n_map) {
  const auto shape = [&](std::initializer_list<int64_t> more) {
    std::vector<int64_t> all = {s.n_prompt, s.n_layer, s.n_head};
    all.insert(all.end(), more);
    return all;
  };
  std::vector<io::ArraySpec> arrays = {
      {"column_sum", "F32", shape({s.n_token})},    {"column_max", "F32", shape({s.n_token})},
      {"column_n_row", "U32", shape({s.n_token})},  {"entropy", "F32", shape({s.n_token})},
      {"strongest", "I32", shape({s.n_token})},     {"first_mass", "F32", shape({s.n_token, kNumFirst})},
      {"learned_sink_mass", "F32", shape({s.n_token})}};
  if (n_map > 0)
    arrays.push_back({"map", "F32", {s.n_prompt, static_cast<int64_t>(n_map), s.n_token, s.n_token}});
  return arrays;
}

}  // namespace

ArraysFile::ArraysFile(const std::string& path, Size size, std::vector<std::pair<int, int>> maps,
                       const std::map<std::string, std::string>& metadata)
    : size_(size), maps_(std::move(maps)), file_(path, specs(size, maps_.size()), metadata) {}

// value(layer, head, position, column), for what the prompt has.
template <class To, class Value>
void ArraysFile::add_array(const char* name, const measure::Recorder& prompt, To missing, int n_column, const Value& value) {
  const int n = prompt.n_token();
  std::vector<To> row(static_cast<size_t>(size_.n_token) * n_column);
  for (int l = 0; l < size_.n_layer; ++l)
    for (int h = 0; h < size_.n_head; ++h) {
      std::fill(row.begin(), row.end(), missing);
      const bool measured = l < static_cast<int>(prompt.layers().size()) && h < prompt.layers()[l].n_head;
      for (int k = 0; measured && k < n; ++k)
        for (int c = 0; c < n_column; ++c)
          row[static_cast<size_t>(k) * n_column + c] = static_cast<To>(value(prompt.layers()[l], h, k, c));
      const int64_t index = (static_cast<int64_t>(n_done_) * size_.n_layer + l) * size_.n_head + h;
      file_.write(name, index * static_cast<int64_t>(row.size()), std::span<const To>(row));
    }
}

void ArraysFile::add(const measure::Recorder& prompt) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const size_t n = prompt.n_token();
  const auto of_head = [&](auto LayerRecord::*array) {
    return [array, n](const LayerRecord& layer, int h, int k, int) { return (layer.*array)[h * n + k]; };
  };
  add_array("column_sum", prompt, kNaN, 1, of_head(&LayerRecord::column_sum));
  add_array("column_max", prompt, kNaN, 1, of_head(&LayerRecord::column_max));
  add_array("column_n_row", prompt, uint32_t{0}, 1, [n](const LayerRecord& layer, int h, int k, int) {
    return layer.key_n_row(h, k, static_cast<int>(n));
  });
  add_array("entropy", prompt, kNaN, 1, of_head(&LayerRecord::entropy));
  add_array("strongest", prompt, int32_t{-1}, 1, of_head(&LayerRecord::strongest));
  add_array("first_mass", prompt, kNaN, kNumFirst,
            [n](const LayerRecord& layer, int h, int k, int c) { return layer.first_mass[layer.first_mass_at(h, k, static_cast<int>(n)) + c]; });
  add_array("learned_sink_mass", prompt, kNaN, 1, [n](const LayerRecord& layer, int h, int k, int) {
    return layer.learned_sink ? layer.learned_sink_mass[h * n + k] : 0.0f;
  });
  for (size_t m = 0; m < maps_.size(); ++m) {
    std::vector<float> padded(static_cast<size_t>(size_.n_token) * size_.n_token, kNaN);
    const std::span<const float> map = prompt.map(maps_[m]);
    for (size_t i = 0; i < n; ++i) std::copy_n(map.data() + i * n, n, padded.data() + i * size_.n_token);
    file_.write("map", static_cast<int64_t>((n_done_ * maps_.size() + m) * padded.size()), std::span<const float>(padded));
  }
  ++n_done_;
}

}  // namespace sinkscope::profile_run
