#include "attention/kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

// Vectors without a size (SVE) cannot be kept in arrays.
#define HWY_DISABLED_TARGETS (HWY_AVX3_DL | HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

#include "attention/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sinkscope::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Accumulators of a register block: rows x 2 vectors, beside two of the panel and one broadcast.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kRowBlock = 12;
#else
constexpr int kRowBlock = 6;
#endif
constexpr int kKeyChunk = 256;  // keys whose value panel stays in the L1 cache
constexpr uint16_t kF16MinusInfinity = 0xFC00;

// c[r][0..kPanel) (+)= sum over i < n of a[r * a_stride + i] * b[i][0..kPanel)
template <int kRows>
HWY_ATTR HWY_INLINE void multiply(const float* HWY_RESTRICT a, size_t a_stride, const float* HWY_RESTRICT b, int n,
                                  bool add, float* HWY_RESTRICT c, size_t c_stride) {
  V low[kRows], high[kRows];
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    low[r] = add ? hn::LoadU(f, c + r * c_stride) : hn::Zero(f);
    high[r] = add ? hn::LoadU(f, c + r * c_stride + kLanes) : hn::Zero(f);
  }
  for (int i = 0; i < n; ++i) {
    const V b_low = hn::Load(f, b + i * kPanel), b_high = hn::Load(f, b + i * kPanel + kLanes);
    HWY_UNROLL(12)
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(f, a[r * a_stride + i]);
      low[r] = hn::MulAdd(x, b_low, low[r]);
      high[r] = hn::MulAdd(x, b_high, high[r]);
    }
  }
  HWY_UNROLL(12)
  for (int r = 0; r < kRows; ++r) {
    hn::StoreU(low[r], f, c + r * c_stride);
    hn::StoreU(high[r], f, c + r * c_stride + kLanes);
  }
}

using Multiply = void (*)(const float*, size_t, const float*, int, bool, float*, size_t);
template <int... kRows>
constexpr std::array<Multiply, sizeof...(kRows) + 1> multiply_table(std::integer_sequence<int, kRows...>) {
  return {nullptr, &multiply<kRows + 1>...};
}
constexpr auto kMultiply = multiply_table(std::make_integer_sequence<int, kRowBlock>());

HWY_ATTR void scores(const float* q, int n_row, int d, const float* key_panels, int first_panel, int last_panel,
                     float* logits, size_t stride) {
  for (int p = first_panel; p < last_panel; ++p)
    for (int r = 0; r < n_row; r += kRowBlock)
      kMultiply[std::min(kRowBlock, n_row - r)](q + static_cast<size_t>(r) * d, d,
                                                key_panels + static_cast<size_t>(p) * d * kPanel, d, false,
                                                logits + r * stride + (p - first_panel) * kPanel, stride);
}

HWY_ATTR void weighted_values(const float* weights, size_t stride, int n_row, int begin, int end, int n_key,
                              const float* value_panels, int d, float* out) {
  const int n_panel = (d + kPanel - 1) / kPanel;
  const size_t out_stride = static_cast<size_t>(n_panel) * kPanel;
  for (int k = begin; k < end; k += kKeyChunk)
    for (int p = 0; p < n_panel; ++p)
      for (int r = 0; r < n_row; r += kRowBlock)
        kMultiply[std::min(kRowBlock, n_row - r)](
            weights + r * stride + (k - begin), stride, value_panels + (static_cast<size_t>(p) * n_key + k) * kPanel,
            std::min(kKeyChunk, end - k), k > begin, out + r * out_stride + p * kPanel, out_stride);
}

// Applies f to whole vectors of [begin, end) of a row, and to the rest behind a mask.
template <class Body>
HWY_ATTR HWY_INLINE void over(int begin, int end, const Body& body) {
  int k = begin;
  for (; k + kLanes <= end; k += kLanes) body(k, kLanes);
  if (k < end) body(k, end - k);
}

HWY_ATTR HWY_INLINE V load_n(const float* p, int n, float other) {
  if (n >= kLanes) return hn::LoadU(f, p);
  HWY_ALIGN float padded[kLanes];
  std::fill_n(padded, kLanes, other);
  std::copy_n(p, n, padded);
  return hn::Load(f, padded);
}

HWY_ATTR HWY_INLINE void store_n(V v, float* p, int n) {
  if (n >= kLanes) return hn::StoreU(v, f, p);
  HWY_ALIGN float padded[kLanes];
  hn::Store(v, f, padded);
  std::copy_n(padded, n, p);
}

HWY_ATTR HWY_INLINE V mask_values(const uint16_t* p, int n) {
  HWY_ALIGN uint16_t padded[kLanes] = {};
  std::memcpy(padded, p, n * sizeof(uint16_t));
  const hn::Rebind<hwy::float16_t, F> half;
  return hn::PromoteTo(f, hn::Load(half, reinterpret_cast<const hwy::float16_t*>(padded)));
}

// e^x for x <= 0, by x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite's split of ln 2) and a polynomial that is minimax
// in relative error. At most 2 ulp from the true value down to -87; 0 below, where floats lose digits, and for -inf.
HWY_ATTR HWY_INLINE V exp_of_negative(V x) {
  const hn::RebindToSigned<F> ints;
  const V n = hn::Round(hn::Mul(x, hn::Set(f, 1.44269504f)));
  const V r = hn::NegMulAdd(n, hn::Set(f, -2.12194440e-4f), hn::NegMulAdd(n, hn::Set(f, 0.693359375f), x));
  V p = hn::MulAdd(hn::Set(f, 1.38145988e-3f), r, hn::Set(f, 8.36871658e-3f));
  p = hn::MulAdd(p, r, hn::Set(f, 4.16683890e-2f));
  p = hn::MulAdd(p, r, hn::Set(f, 1.66665211e-1f));
  p = hn::MulAdd(p, r, hn::Set(f, 4.99999940e-1f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(f, 1.0f));
  const auto scaled = hn::Add(hn::BitCast(ints, p), hn::ShiftLeft<23>(hn::ConvertTo(ints, n)));
  return hn::IfThenElseZero(hn::Ge(x, hn::Set(f, -87.0f)), hn::BitCast(f, scaled));
}

HWY_ATTR void to_halves(const float* from, int n, uint16_t* to) {
  const hn::Rebind<hwy::float16_t, F> half;
  over(0, n, [&](int i, int m) HWY_ATTR {
    HWY_ALIGN hwy::float16_t halves[kLanes];
    hn::Store(hn::DemoteTo(half, load_n(from + i, m, 0)), half, halves);
    std::memcpy(to + i, halves, m * sizeof(uint16_t));
  });
}

HWY_ATTR void exponentials(const float* x, int n, float* to) {
  over(0, n, [&](int k, int m) HWY_ATTR { store_n(exp_of_negative(load_n(x + k, m, 0)), to + k, m); });
}

// Soft cap, mask and bias on the logits that a row sees; what it does not see becomes 0, and so do its values. Gives the largest logit,
// -inf where there is none. False: one is not a number, and the row is finished.
HWY_ATTR HWY_INLINE bool finish_logits(float* row, int begin, int end, const RowTask& task, const RowValues& values, float* top) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int first = task.view.begin, last = task.view.end;
  float* x = row - begin;  // x[k] belongs to key k

  const bool changes = task.soft_cap != 0 || task.mask || task.bias;
  V largest = hn::Set(f, kNothing);
  auto not_a_number = hn::FirstN(f, 0);
  over(first, last, [&](int k, int n) HWY_ATTR {
    V logit = load_n(x + k, n, kNothing);
    if (changes) {
      if (task.soft_cap != 0) {
        const V cap = hn::Set(f, task.soft_cap);
        logit = hn::Mul(cap, hn::Tanh(f, hn::Div(logit, cap)));
      }
      if (task.mask) logit = hn::MulAdd(hn::Set(f, task.slope), mask_values(task.mask + k, n), logit);
      if (task.bias) logit = hn::Add(load_n(task.bias + k, n, 0), logit);
      store_n(logit, x + k, n);
    }
    if (n < kLanes) logit = load_n(x + k, n, kNothing);
    not_a_number = hn::Or(not_a_number, hn::IsNaN(logit));
    largest = hn::Max(largest, logit);
  });
  *top = hn::GetLane(hn::MaxOfLanes(f, largest));

  std::fill(row, x + first, 0.0f);
  std::fill(x + last, x + end, 0.0f);
  *values.entropy = *values.learned_sink_mass = *values.largest_weight = 0;
  *values.log_sum = kNothing;
  if (hn::AllFalse(f, not_a_number)) return true;
  *values.entropy = *values.largest_weight = *values.log_sum = std::numeric_limits<float>::quiet_NaN();
  std::fill(x + first, x + last, *values.entropy);
  return false;
}

HWY_ATTR void softmax_row(float* row, int begin, int end, const RowTask& task, const RowValues& values) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int first = task.view.begin, last = task.view.end;
  float* x = row - begin;
  float top_of_keys;
  if (!finish_logits(row, begin, end, task, values, &top_of_keys)) return;
  float top = top_of_keys;
  if (task.learned_sink) top = std::max(top, *task.learned_sink);
  if (top == kNothing) {
    std::fill(x + first, x + last, 0.0f);
    return;
  }

  // With e = exp(s - top): entropy = ln(sum e) - (sum e (s - top)) / (sum e). Masked logits are -inf: e is 0 there,
  // and the difference is kept finite so that their product is 0 too.
  V sum = hn::Zero(f), weighted = hn::Zero(f);
  const V lowest = hn::Set(f, -104.0f), shift = hn::Set(f, top);
  over(first, last, [&](int k, int n) HWY_ATTR {
    const V s = hn::Sub(load_n(x + k, n, kNothing), shift);
    const V e = exp_of_negative(s);
    sum = hn::Add(sum, e);
    weighted = hn::MulAdd(e, hn::Max(s, lowest), weighted);
    store_n(e, x + k, n);
  });
  float total = hn::GetLane(hn::SumOfLanes(f, sum));
  float total_weighted = hn::GetLane(hn::SumOfLanes(f, weighted));
  if (task.learned_sink) {
    const float s = std::max(*task.learned_sink - top, -104.0f), e = std::exp(s);
    total += e;
    total_weighted += e * s;
    *values.learned_sink_mass = e / total;
  }
  const float inverse = 1 / total;
  const V scale = hn::Set(f, inverse);
  over(first, last,
       [&](int k, int n) HWY_ATTR { store_n(hn::Mul(load_n(x + k, n, 0), scale), x + k, n); });
  const float log_total = std::log(total);
  *values.log_sum = top + log_total;
  *values.entropy = log_total - total_weighted * inverse;
  *values.largest_weight = hn::GetLane(hn::Mul(exp_of_negative(hn::Set(f, top_of_keys - top)), scale));
}

// With e = exp(-|s|): sigmoid(s) = 1 / (1 + e) or e / (1 + e), and its logarithm is min(s, 0) - ln(1 + e). Entropy is that of shares:
// ln(sum w) - (sum w ln w) / (sum w).
HWY_ATTR void sigmoid_row(float* row, int begin, int end, const RowTask& task, const RowValues& values) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int first = task.view.begin, last = task.view.end;
  float* x = row - begin;
  float top;
  if (!finish_logits(row, begin, end, task, values, &top)) return;
  if (top == kNothing) {
    std::fill(x + first, x + last, 0.0f);
    return;
  }

  const V zero = hn::Zero(f), one = hn::Set(f, 1), lowest = hn::Set(f, -104.0f), shift = hn::Set(f, top);
  V sum = zero, weighted = zero, largest = zero, exponentials = zero;
  over(first, last, [&](int k, int n) HWY_ATTR {
    const V s = load_n(x + k, n, kNothing), e = exp_of_negative(hn::Neg(hn::Abs(s)));
    const V w = hn::Div(hn::IfThenElse(hn::Ge(s, zero), one, e), hn::Add(one, e));
    sum = hn::Add(sum, w);
    weighted = hn::MulAdd(w, hn::Sub(hn::Max(hn::Min(s, zero), lowest), hn::Log1p(f, e)), weighted);
    largest = hn::Max(largest, w);
    exponentials = hn::Add(exponentials, exp_of_negative(hn::Sub(s, shift)));
    store_n(w, x + k, n);
  });
  const float total = hn::GetLane(hn::SumOfLanes(f, sum));
  *values.log_sum = top + std::log(hn::GetLane(hn::SumOfLanes(f, exponentials)));
  *values.entropy = total > 0 ? std::log(total) - hn::GetLane(hn::SumOfLanes(f, weighted)) / total : 0;
  *values.largest_weight = hn::GetLane(hn::MaxOfLanes(f, largest));
}

HWY_ATTR RowView view_of(const uint16_t* mask_row, int n_key) {
  const hn::ScalableTag<uint16_t> halves;
  constexpr int kHalves = static_cast<int>(hn::MaxLanes(halves));
  const auto all = [&](int k, uint16_t value) HWY_ATTR {
    return hn::AllTrue(halves, hn::Eq(hn::LoadU(halves, mask_row + k), hn::Set(halves, value)));
  };
  int begin = 0, end = n_key;
  while (begin + kHalves <= end && all(begin, kF16MinusInfinity)) begin += kHalves;
  while (begin < end && mask_row[begin] == kF16MinusInfinity) ++begin;
  while (end - kHalves >= begin && all(end - kHalves, kF16MinusInfinity)) end -= kHalves;
  while (end > begin && mask_row[end - 1] == kF16MinusInfinity) --end;
  int k = begin;
  while (k + kHalves <= end && all(k, 0)) k += kHalves;
  while (k < end && mask_row[k] == 0) ++k;
  return {begin, end, k == end};
}

HWY_ATTR void add_columns(const Tile& tile, float* sum, float* largest) {
  over(0, tile.key_end - tile.key_begin, [&](int k, int n) HWY_ATTR {
    float* sums = sum + tile.key_begin + k;
    float* tops = largest + tile.key_begin + k;
    V total = load_n(sums, n, 0), top = load_n(tops, n, 0);
    const float* w = tile.weights + k;
    for (int r = 0; r < tile.n_row; ++r, w += tile.stride) {
      const V weight = load_n(w, n, 0);
      total = hn::Add(total, weight);
      top = hn::Max(top, weight);
    }
    store_n(total, sums, n);
    store_n(top, tops, n);
  });
}

HWY_ATTR int strongest(const float* row, int n, float largest) {
  if (!(largest > 0)) return -1;
  const V same = hn::Set(f, largest);
  for (int k = 0; k + kLanes <= n; k += kLanes)
    if (const auto found = hn::FindFirstTrue(f, hn::Eq(hn::LoadU(f, row + k), same)); found >= 0) return k + static_cast<int>(found);
  return static_cast<int>(std::find(row + n / kLanes * kLanes, row + n, largest) - row);
}

HWY_ATTR float sum(const float* values, int n) {
  V total = hn::Zero(f);
  over(0, n, [&](int k, int n_lane) HWY_ATTR { total = hn::Add(total, load_n(values + k, n_lane, 0)); });
  return hn::GetLane(hn::SumOfLanes(f, total));
}

constexpr Kernels kernels_with(const char* name) {
  return {name,         kPanel,           kRowBlock, &pack_keys,    &pack_values, &scores,       &softmax_row, &sigmoid_row,
          &weighted_values, &view_of, &key_scores, &add_values, &fold_channels, &decode_rows, &to_halves, &exponentials, &add_columns, &strongest, &sum};
}

}  // namespace sinkscope::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <fmt/format.h>
#include <hwy/targets.h>

#include "sinkscope/error.h"

namespace sinkscope::attention {
namespace {

struct Compiled {
  int64_t target;
  Kernels kernels;
};

constexpr Compiled kCompiled[] = {
#if HWY_TARGETS & HWY_AVX3
    {HWY_AVX3, N_AVX3::kernels_with("avx512")},
#endif
#if HWY_TARGETS & HWY_AVX2
    {HWY_AVX2, N_AVX2::kernels_with("avx2")},
#endif
#if HWY_TARGETS & HWY_SSE4
    {HWY_SSE4, N_SSE4::kernels_with("sse4")},
#endif
#if HWY_TARGETS & HWY_NEON
    {HWY_NEON, N_NEON::kernels_with("neon")},
#endif
#if HWY_TARGETS & HWY_EMU128
    {HWY_EMU128, N_EMU128::kernels_with("generic")},
#endif
#if HWY_TARGETS & HWY_SCALAR
    {HWY_SCALAR, N_SCALAR::kernels_with("generic")},
#endif
};

std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> found;
  for (const Compiled& c : kCompiled)
    if (hwy::SupportedTargets() & c.target) found.push_back(&c.kernels);
  return found;
}

}  // namespace

std::span<const Kernels* const> available_kernels() {
  static const std::vector<const Kernels*> found = supported();
  return found;
}

const Kernels& kernels(const std::string& isa) {
  std::string names;
  for (const Kernels* k : available_kernels()) {
    if (isa == "auto" || isa == k->name) return *k;
    names += names.empty() ? k->name : std::string(", ") + k->name;
  }
  throw UsageError(fmt::format("--isa '{}' is not an instruction set of this program and processor; use auto or one of: {}",
                               isa, names));
}

}  // namespace sinkscope::attention
#endif
