#include "measure/hidden.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/team.h"

namespace sinkscope::measure {
namespace {

// Numbers whose steps are worth a look: so large, or so many times the root mean square of their token.
constexpr float kLarge = 100, kOverRms = 20;

// What enters layer 0 is called so in llama.cpp's graphs: the last of them that comes is it.
constexpr std::string_view kEntering[] = {"embd", "inp_embd", "inp_scaled", "inp_norm", "inpL"};
// And the residual stream between attention and MLP.
constexpr std::string_view kMiddle[] = {"ffn_inp", "sa_out", "attn_residual"};

bool is_one_of(std::string_view name, std::span<const std::string_view> names) { return std::ranges::find(names, name) != names.end(); }

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}
double norm_of(std::span<const float> row) { return std::sqrt(dot(row, row)); }

// Batches as they lie in memory, row after row.
void copy_rows(const TensorView& t, std::vector<float>& to) {
  to.resize(static_cast<size_t>(t.n[1] * t.n[0]));
  for (int64_t i = 0; i < t.n[1]; ++i) std::copy_n(t.row(i), t.n[0], to.data() + i * t.n[0]);
}

}  // namespace

double HiddenRecord::length() const { return std::sqrt(sum_squares); }

double HiddenRecord::spread() const {
  double squares = 0;
  for (const double s : sum) squares += s * s;
  return std::sqrt(std::max(0.0, sum_squares - squares / std::max<size_t>(norm.size(), 1)));
}

void HiddenRecorder::start(int n_token) {
  n_token_ = n_token;
  records_.clear();
  n_seen_.clear();
  steps_.clear();
  first_.clear();
  states_.clear();
  before_.clear();
  middle_.clear();
}

bool HiddenRecorder::wants(std::string_view name, int layer) {
  return (layer >= 0 && (name == "l_out" || is_one_of(name, kMiddle))) || is_one_of(name, kEntering);
}

void HiddenRecorder::see(const TensorView& tensor) {
  if (tensor.integers || tensor.n[2] != 1) return;
  if (is_one_of(tensor.name, kMiddle)) {
    names_attention_ = true;
    return copy_rows(tensor, middle_);
  }
  if (tensor.name == "l_out") {
    const auto n = static_cast<size_t>(tensor.n[0] * tensor.n[1]);
    if (tensor.layer == 0 && before_.size() == n) read({.n = {tensor.n[0], tensor.n[1]}, .stride = {4, tensor.n[0] * sizeof(float)}, .data = reinterpret_cast<std::byte*>(before_.data())}, 0);
    read(tensor, tensor.layer + 1);
    find_steps(tensor, tensor.layer);
  }
  copy_rows(tensor, before_);
  middle_.clear();
}

void HiddenRecorder::read(const TensorView& t, int index) {
  n_embd_ = static_cast<int>(t.n[0]);
  if (index >= static_cast<int>(records_.size())) {
    records_.resize(index + 1);
    n_seen_.resize(index + 1);
    first_.resize(index + 1);
    states_.resize(index + 1);
  }
  HiddenRecord& record = records_[index];
  const int first = n_seen_[index], n = static_cast<int>(std::min<int64_t>(t.n[1], n_token_ - first));
  if (n <= 0) return;
  if (first == 0) {
    record = {.norm = std::vector<float>(n_token_), .median = std::vector<float>(n_token_), .peaks = std::vector<std::array<Peak, kPeaks>>(n_token_),
              .cos_first = std::vector<float>(n_token_), .sum = std::vector<double>(n_embd_)};
    first_[index].assign(t.row(0), t.row(0) + n_embd_);
    if (keeps_states_) states_[index].assign(static_cast<size_t>(n_token_) * n_embd_, 0);
  }
  constexpr int kRowsPerTask = 64;
  const int n_task = (n + kRowsPerTask - 1) / kRowsPerTask;
  const double first_norm = norm_of(first_[index]);
  std::vector<double> sums(static_cast<size_t>(n_task) * n_embd_), squares(n_task);
  attention::run_tasks(n_task, n_thread_, [&](int task, int) {
    double* sum = sums.data() + static_cast<size_t>(task) * n_embd_;
    std::vector<float> magnitudes(n_embd_);
    for (int i = task * kRowsPerTask; i < std::min(n, (task + 1) * kRowsPerTask); ++i) {
      const std::span<const float> row(t.row(i), n_embd_);
      const double norm = norm_of(row), lengths = first_norm * norm;
      record.norm[first + i] = static_cast<float>(norm);
      record.cos_first[first + i] = lengths > 0 ? static_cast<float>(dot(row, first_[index]) / lengths) : 0;
      read_magnitudes(row, first + i, magnitudes, record);
      for (int d = 0; d < n_embd_; ++d) sum[d] += row[d];
      squares[task] += norm * norm;
      if (keeps_states_) std::ranges::copy(row, states_[index].begin() + static_cast<std::ptrdiff_t>(first + i) * n_embd_);
    }
  });
  for (int task = 0; task < n_task; ++task) {  // in order: the same bits for any number of threads
    for (int d = 0; d < n_embd_; ++d) record.sum[d] += sums[static_cast<size_t>(task) * n_embd_ + d];
    record.sum_squares += squares[task];
  }
  n_seen_[index] = first + n;
}

void HiddenRecorder::read_magnitudes(std::span<const float> row, int position, std::span<float> magnitudes, HiddenRecord& record) const {
  for (int d = 0; d < n_embd_; ++d) magnitudes[d] = std::abs(row[d]);
  std::array<Peak, kPeaks>& peaks = record.peaks[position];
  peaks = {};
  for (int d = 0; d < n_embd_; ++d) {
    if (peaks.back().dim >= 0 && magnitudes[d] <= std::abs(peaks.back().value)) continue;
    int p = kPeaks - 1;
    for (; p > 0 && (peaks[p - 1].dim < 0 || magnitudes[d] > std::abs(peaks[p - 1].value)); --p) peaks[p] = peaks[p - 1];
    peaks[p] = {row[d], d};
  }
  std::nth_element(magnitudes.begin(), magnitudes.begin() + n_embd_ / 2, magnitudes.end());
  record.median[position] = magnitudes[n_embd_ / 2];
}

void HiddenRecorder::find_steps(const TensorView& t, int layer) {
  const size_t n = static_cast<size_t>(t.n[0] * t.n[1]);
  if (before_.size() != n) return;  // other tokens than before: outputs alone
  const HiddenRecord& behind = records_[layer + 1];
  const int first = n_seen_[layer + 1] - static_cast<int>(t.n[1]), n_embd = static_cast<int>(t.n[0]);
  std::vector<int> dims;
  for (int64_t i = 0; i < t.n[1] && first + i >= 0; ++i) {
    const auto position = static_cast<size_t>(first + i);
    const float* after = t.row(i);
    const float* before = before_.data() + i * n_embd;
    dims.clear();
    const auto add = [&](const HiddenRecord& record) {
      const float low = std::min(kLarge, kOverRms * record.norm[position] / std::sqrt(static_cast<float>(n_embd)));
      for (const Peak& peak : record.peaks[position])
        if (peak.dim >= 0 && std::abs(peak.value) >= low && std::ranges::find(dims, peak.dim) == dims.end()) dims.push_back(peak.dim);
    };
    add(behind);
    if (position < records_[layer].norm.size()) add(records_[layer]);
    for (const int d : dims)
      steps_.push_back({layer, static_cast<int>(position), d, before[d], middle_.size() == n ? middle_[i * n_embd + d] : std::numeric_limits<float>::quiet_NaN(), after[d]});
  }
}

}  // namespace sinkscope::measure
