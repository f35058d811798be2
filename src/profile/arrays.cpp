#include "profile/arrays.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace sinkscope::profile_run {
namespace {

using measure::kNumFirst;
using measure::LayerRecord;

std::vector<io::ArraySpec> specs(ArraysFile::Content content, const ArraysFile::Size& s, int n_band, size_t n_map) {
  const auto shape = [&](std::initializer_list<int64_t> more) {
    std::vector<int64_t> all = {s.n_prompt, s.n_layer, s.n_head};
    all.insert(all.end(), more);
    return all;
  };
  std::vector<io::ArraySpec> arrays = {{"column_sum", "F32", shape({s.n_token})}, {"column_n_row", "U32", shape({s.n_token})}};
  if (content == ArraysFile::Content::all)
    for (const io::ArraySpec& a : {io::ArraySpec{"column_max", "F32", shape({s.n_token})}, {"entropy", "F32", shape({s.n_token})},
                                   {"strongest", "I32", shape({s.n_token})}, {"first_mass", "F32", shape({s.n_token, kNumFirst})},
                                   {"learned_sink_mass", "F32", shape({s.n_token})}})
      arrays.push_back(a);
  arrays.push_back({"bands", "F32", {s.n_layer, s.n_head, n_band, n_band}});
  if (n_map > 0) arrays.push_back({"map", "F32", {s.n_prompt, static_cast<int64_t>(n_map), s.n_token, s.n_token}});
  return arrays;
}

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Of an accumulator [head, token].
auto of_head(auto LayerRecord::*array, int n_token) {
  return [array, n_token](const LayerRecord& layer, int h, int k, int) { return (layer.*array)[static_cast<size_t>(h) * n_token + k]; };
}

}  // namespace

ArraysFile::ArraysFile(const std::string& path, Content content, Size size, measure::Bands bands, std::vector<std::pair<int, int>> maps,
                       const std::map<std::string, std::string>& metadata)
    : content_(content), size_(size), bands_(bands), maps_(std::move(maps)), file_(path, specs(content, size, bands.n, maps_.size()), metadata),
      band_sum_(static_cast<size_t>(size.n_layer) * size.n_head * bands.n * bands.n, kNaN), band_n_pair_(static_cast<size_t>(size.n_layer) * bands.n * bands.n) {}

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
  add_bands(prompt);
  if (n_done_ == size_.n_prompt) return;
  add_columns(prompt);
  if (content_ == Content::all) add_rows(prompt);
  add_maps(prompt);
  ++n_done_;
}

void ArraysFile::add_columns(const measure::Recorder& prompt) {
  const int n = prompt.n_token();
  add_array("column_sum", prompt, kNaN, 1, of_head(&LayerRecord::column_sum, n));
  add_array("column_n_row", prompt, uint32_t{0}, 1, [n](const LayerRecord& layer, int h, int k, int) { return layer.key_n_row(h, k, n); });
}

void ArraysFile::add_rows(const measure::Recorder& prompt) {
  const int n = prompt.n_token();
  add_array("column_max", prompt, kNaN, 1, of_head(&LayerRecord::column_max, n));
  add_array("entropy", prompt, kNaN, 1, of_head(&LayerRecord::entropy, n));
  add_array("strongest", prompt, int32_t{-1}, 1, of_head(&LayerRecord::strongest, n));
  add_array("first_mass", prompt, kNaN, kNumFirst,
            [n](const LayerRecord& layer, int h, int k, int c) { return layer.first_mass[layer.first_mass_at(h, k, n) + c]; });
  add_array("learned_sink_mass", prompt, kNaN, 1, [n](const LayerRecord& layer, int h, int k, int) {
    return layer.learned_sink ? layer.learned_sink_mass[static_cast<size_t>(h) * n + k] : 0.0f;
  });
}

void ArraysFile::add_maps(const measure::Recorder& prompt) {
  const size_t n = prompt.n_token();
  for (size_t m = 0; m < maps_.size(); ++m) {
    std::vector<float> padded(static_cast<size_t>(size_.n_token) * size_.n_token, kNaN);
    const std::span<const float> map = prompt.map(maps_[m]);
    for (size_t i = 0; i < n; ++i) std::copy_n(map.data() + i * n, n, padded.data() + i * size_.n_token);
    file_.write("map", static_cast<int64_t>((n_done_ * maps_.size() + m) * padded.size()), std::span<const float>(padded));
  }
}

void ArraysFile::add_bands(const measure::Recorder& prompt) {
  const size_t n = static_cast<size_t>(bands_.n) * bands_.n;
  for (size_t l = 0; l < prompt.layers().size() && static_cast<int>(l) < size_.n_layer; ++l) {
    const LayerRecord& layer = prompt.layers()[l];
    if (layer.n_head == 0) continue;
    layer.add_band_pairs(bands_, std::span(band_n_pair_).subspan(l * n, n));
    double* sum = band_sum_.data() + l * size_.n_head * n;
    for (size_t i = 0; i < std::min<size_t>(layer.n_head, size_.n_head) * n; ++i) sum[i] = (std::isnan(sum[i]) ? 0 : sum[i]) + layer.band_sum[i];
  }
}

void ArraysFile::finish() {
  std::vector<float> mean(band_sum_.size());
  const size_t n = static_cast<size_t>(bands_.n) * bands_.n;
  for (size_t i = 0; i < mean.size(); ++i) {
    const double n_pair = band_n_pair_[i / (size_.n_head * n) * n + i % n];
    mean[i] = n_pair > 0 ? static_cast<float>(band_sum_[i] / n_pair) : kNaN;
  }
  file_.write("bands", 0, std::span<const float>(mean));
}

}  // namespace sinkscope::profile_run
