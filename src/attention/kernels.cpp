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
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace sinkscope::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;
constexpr F f;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(f));
constexpr int kPanel = 2 * kLanes;
// Accumulators of a register block: rows x 2 vectors, beside two of the panel and one broadcast.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kRowBlock = 12;
#else
constexpr int kRowBlock = 6;
#endif
constexpr int kKeyChunk = 256;  // keys whose value panel stays in the L1 cache

constexpr uint16_t kF16MinusInfinity = 0xFC00;

// Half is hwy::float16_t or hwy::bfloat16_t.
template <class Half>
HWY_ATTR void decode_halves(const std::byte* from, int n, float* to) {
  const hn::Rebind<Half, F> half;
  const auto* p = reinterpret_cast<const Half*>(from);
  const int rest = n % kLanes, whole = n - rest;
  for (int i = 0; i < whole; i += kLanes) hn::StoreU(hn::PromoteTo(f, hn::LoadU(half, p + i)), f, to + i);
  if (rest == 0) return;
  HWY_ALIGN Half padded[kLanes] = {};
  HWY_ALIGN float floats[kLanes];
  std::memcpy(padded, p + whole, static_cast<size_t>(rest) * sizeof(Half));
  hn::Store(hn::PromoteTo(f, hn::Load(half, padded)), f, floats);
  std::copy_n(floats, rest, to + whole);
}

// Blocks of 32 values with an f16 scale in front.
template <class Decode>
HWY_ATTR HWY_INLINE void decode_blocks(const std::byte* from, int n, size_t block_bytes, float* to, const Decode& decode) {
  const hn::CappedTag<hwy::float16_t, 1> one;
  const hn::CappedTag<float, 1> one_float;
  for (int i = 0; i < n; i += 32, from += block_bytes, to += 32) {
    HWY_ALIGN hwy::float16_t half[8];
    std::memcpy(half, from, sizeof half[0]);
    decode(reinterpret_cast<const uint8_t*>(from) + sizeof half[0],
           hn::Set(f, hn::GetLane(hn::PromoteTo(one_float, hn::LoadU(one, half)))), to);
  }
}

HWY_ATTR void decode_q8_0(const std::byte* from, int n, float* to) {
  const hn::Rebind<int8_t, F> bytes;
  const hn::Rebind<int32_t, F> ints;
  decode_blocks(from, n, 34, to, [&](const uint8_t* q, V scale, float* block) HWY_ATTR {
    for (int i = 0; i < 32; i += kLanes)
      hn::StoreU(hn::Mul(scale, hn::ConvertTo(f, hn::PromoteTo(ints, hn::LoadU(bytes, reinterpret_cast<const int8_t*>(q) + i)))),
                 f, block + i);
  });
}

HWY_ATTR void decode_q4_0(const std::byte* from, int n, float* to) {
  const hn::Rebind<uint8_t, F> bytes;
  const hn::Rebind<int32_t, F> ints;
  const auto eight = hn::Set(ints, 8), low = hn::Set(ints, 15);
  decode_blocks(from, n, 18, to, [&](const uint8_t* q, V scale, float* block) HWY_ATTR {
    for (int i = 0; i < 16; i += kLanes) {
      const auto both = hn::PromoteTo(ints, hn::LoadU(bytes, q + i));
      hn::StoreU(hn::Mul(scale, hn::ConvertTo(f, hn::Sub(hn::And(both, low), eight))), f, block + i);
      hn::StoreU(hn::Mul(scale, hn::ConvertTo(f, hn::Sub(hn::ShiftRight<4>(both), eight))), f, block + 16 + i);
    }
  });
}

// One row of keys or values as floats: in place where it is float already, else decoded into `scratch`.
HWY_ATTR const float* decoded_row(const Rows& rows, const std::byte* from, int d, float* scratch) {
  switch (rows.element) {
    case Element::f32: return reinterpret_cast<const float*>(from);
    case Element::f16: decode_halves<hwy::float16_t>(from, d, scratch); break;
    case Element::bf16: decode_halves<hwy::bfloat16_t>(from, d, scratch); break;
    case Element::q8_0: decode_q8_0(from, d, scratch); break;
    case Element::q4_0: decode_q4_0(from, d, scratch); break;
    case Element::coded: rows.decode(from, scratch, d); break;
  }
  return scratch;
}

HWY_ATTR HWY_INLINE void decode_row(const Rows& rows, const std::byte* from, int d, int d_stride, float* to) {
  if (rows.element == Element::f16 && d == d_stride) {  // what most caches are
    const hn::Rebind<hwy::float16_t, F> half;
    for (int i = 0; i < d; i += kLanes)
      hn::StoreU(hn::PromoteTo(f, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(from) + i)), f, to + i);
    return;
  }
  const float* decoded = decoded_row(rows, from, d, to);
  if (decoded != to) std::copy_n(decoded, d, to);
  std::fill(to + d, to + d_stride, 0.0f);
}

HWY_ATTR void decode_rows(const Rows& rows, int stream, int n_head_kv, int first, int n, int d, int d_stride, float* to) {
  const std::byte* from = rows.row(stream, 0, first);
  const size_t next = n * rows.key_stride, row_bytes = std::min(rows.key_stride, rows.head_stride);
  const auto decode = [&](int h, int k) HWY_ATTR {
    const std::byte* row = from + h * rows.head_stride + k * rows.key_stride;
    // The next rows come from memory while these are computed with.
    for (size_t line = 0; line < row_bytes; line += 64) hwy::Prefetch(row + next + line);
    decode_row(rows, row, d, d_stride, to + (static_cast<size_t>(h) * n + k) * d_stride);
  };
  if (rows.head_stride < rows.key_stride)
    for (int k = 0; k < n; ++k)
      for (int h = 0; h < n_head_kv; ++h) decode(h, k);
  else
    for (int h = 0; h < n_head_kv; ++h)
      for (int k = 0; k < n; ++k) decode(h, k);
}

#if HWY_TARGET == HWY_SCALAR
HWY_ATTR HWY_INLINE void store_sums(const V* v, int n, float* to) {
  for (int i = 0; i < n; ++i) to[i] = hn::GetLane(v[i]);
}
#else
// Sums of neighbouring lanes: those of a in the lower half, those of b in the upper one.
HWY_ATTR HWY_INLINE V pairwise(V a, V b) { return hn::Add(hn::ConcatEven(f, b, a), hn::ConcatOdd(f, b, a)); }

// The sums of n vectors (at most 4), written to `to`.
HWY_ATTR HWY_INLINE void store_sums(const V* v, int n, float* to) {
  V sums = pairwise(pairwise(v[0], v[1]), pairwise(v[2], v[3]));
  for (int lanes = kLanes; lanes > 4; lanes /= 2) sums = pairwise(sums, sums);
  hn::BlendedStore(sums, hn::FirstN(f, n), f, to);
}
#endif

// kRows queries against up to 4 keys.
template <int kRows>
HWY_ATTR HWY_INLINE void four_keys(const float* HWY_RESTRICT q, int d_stride, const float* HWY_RESTRICT keys, int n_key,
                                   float* HWY_RESTRICT logits, size_t stride) {
  V sums[kRows][4];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r)
    for (int k = 0; k < 4; ++k) sums[r][k] = hn::Zero(f);
  const float* key[4];
  for (int k = 0; k < 4; ++k) key[k] = keys + std::min(k, n_key - 1) * static_cast<size_t>(d_stride);
  for (int i = 0; i < d_stride; i += kLanes) {
    const V k0 = hn::LoadU(f, key[0] + i), k1 = hn::LoadU(f, key[1] + i), k2 = hn::LoadU(f, key[2] + i),
            k3 = hn::LoadU(f, key[3] + i);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::LoadU(f, q + static_cast<size_t>(r) * d_stride + i);
      sums[r][0] = hn::MulAdd(x, k0, sums[r][0]);
      sums[r][1] = hn::MulAdd(x, k1, sums[r][1]);
      sums[r][2] = hn::MulAdd(x, k2, sums[r][2]);
      sums[r][3] = hn::MulAdd(x, k3, sums[r][3]);
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) store_sums(sums[r], n_key, logits + r * stride);
}

// Rows of a register block of few queries.
constexpr int kFewRows = kLanes >= 16 ? 4 : 2;

HWY_ATTR void key_scores(const float* q, int n_row, int d_stride, const float* keys, int n_key, float* logits, size_t stride) {
  for (int r = 0; r < n_row; r += kFewRows)
    for (int k = 0; k < n_key; k += 4) {
      const float* rows = q + static_cast<size_t>(r) * d_stride;
      const float* four = keys + static_cast<size_t>(k) * d_stride;
      float* to = logits + r * stride + k;
      const int n = std::min(4, n_key - k);
      switch (std::min(kFewRows, n_row - r)) {
        case 4: four_keys<4>(rows, d_stride, four, n, to, stride); break;
        case 3: four_keys<3>(rows, d_stride, four, n, to, stride); break;
        case 2: four_keys<2>(rows, d_stride, four, n, to, stride); break;
        default: four_keys<1>(rows, d_stride, four, n, to, stride);
      }
    }
}

// kRows weights against kVectors vectors of components.
template <int kRows, int kVectors>
HWY_ATTR HWY_INLINE void add_components(const float* HWY_RESTRICT weights, size_t stride, const float* HWY_RESTRICT values,
                                        int n_key, int d_stride, float* HWY_RESTRICT out) {
  V sums[kRows][kVectors];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r)
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::LoadU(f, out + static_cast<size_t>(r) * d_stride + v * kLanes);
  for (int k = 0; k < n_key; ++k, values += d_stride) {
    V value[kVectors];
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) value[v] = hn::LoadU(f, values + v * kLanes);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const V w = hn::Set(f, weights[r * stride + k]);
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(w, value[v], sums[r][v]);
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r)
    HWY_UNROLL(4)
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], f, out + static_cast<size_t>(r) * d_stride + v * kLanes);
}

template <int kVectors>
HWY_ATTR HWY_INLINE void add_slice(const float* weights, size_t stride, int n_row, const float* values, int n_key, int d_stride,
                                   float* out) {
  for (int r = 0; r < n_row; r += 4) {
    const float* w = weights + r * stride;
    float* to = out + static_cast<size_t>(r) * d_stride;
    switch (std::min(4, n_row - r)) {
      case 4: add_components<4, kVectors>(w, stride, values, n_key, d_stride, to); break;
      case 3: add_components<3, kVectors>(w, stride, values, n_key, d_stride, to); break;
      case 2: add_components<2, kVectors>(w, stride, values, n_key, d_stride, to); break;
      default: add_components<1, kVectors>(w, stride, values, n_key, d_stride, to);
    }
  }
}

HWY_ATTR void add_values(const float* weights, size_t stride, int n_row, const float* values, int n_key, int d_stride,
                         float* out) {
  constexpr int kMany = kFewRows;  // with 32 registers 4 vectors for 4 rows, with 16 two
  int c = 0;
  for (; c + kMany * kLanes <= d_stride; c += kMany * kLanes) add_slice<kMany>(weights, stride, n_row, values + c, n_key, d_stride, out + c);
  for (; c < d_stride; c += kPanel) add_slice<2>(weights, stride, n_row, values + c, n_key, d_stride, out + c);
}

HWY_ATTR void pack_keys(const Rows& rows, int stream, int head_kv, int first, int n, int d, float* panels,
                        float* scratch) {
  for (int k = first; k < first + (n + kPanel - 1) / kPanel * kPanel; ++k) {
    float* HWY_RESTRICT to = panels + static_cast<size_t>(k / kPanel) * d * kPanel + k % kPanel;
    if (k >= first + n) {
      for (int i = 0; i < d; ++i) to[i * kPanel] = 0;
      continue;
    }
    const float* HWY_RESTRICT from = decoded_row(rows, rows.row(stream, head_kv, k), d, scratch);
    for (int i = 0; i < d; ++i) to[i * kPanel] = from[i];
  }
}

HWY_ATTR void pack_values(const Rows& rows, int stream, int head_kv, int first, int n, int d, int n_key, float* panels,
                          float* scratch) {
  for (int k = first; k < first + n; ++k) {
    const float* HWY_RESTRICT from = decoded_row(rows, rows.row(stream, head_kv, k), d, scratch);
    for (int c = 0; c < d; c += kPanel) {
      float* HWY_RESTRICT to = panels + (static_cast<size_t>(c / kPanel) * n_key + k) * kPanel;
      const int width = std::min(kPanel, d - c);
      for (int i = 0; i < width; ++i) to[i] = from[c + i];
      for (int i = width; i < kPanel; ++i) to[i] = 0;
    }
  }
}

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
  if (n == kLanes) return hn::LoadU(f, p);
  HWY_ALIGN float padded[kLanes];
  std::fill_n(padded, kLanes, other);
  std::copy_n(p, n, padded);
  return hn::Load(f, padded);
}

HWY_ATTR HWY_INLINE void store_n(V v, float* p, int n) {
  if (n == kLanes) return hn::StoreU(v, f, p);
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

HWY_ATTR void exponentials(const float* x, int n, float* to) {
  over(0, n, [&](int k, int m) HWY_ATTR { store_n(exp_of_negative(load_n(x + k, m, 0)), to + k, m); });
}

HWY_ATTR void softmax_row(float* row, int begin, int end, const RowTask& task, float* entropy,
                          float* learned_sink_mass, float* largest_weight) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int first = task.view.begin, last = task.view.end;
  float* x = row - begin;  // x[k] belongs to key k

  V largest = hn::Set(f, kNothing);
  auto not_a_number = hn::FirstN(f, 0);
  over(first, last, [&](int k, int n) HWY_ATTR {
    V logit = load_n(x + k, n, kNothing);
    if (task.soft_cap != 0) {
      const V cap = hn::Set(f, task.soft_cap);
      logit = hn::Mul(cap, hn::Tanh(f, hn::Div(logit, cap)));
    }
    if (task.mask) logit = hn::MulAdd(hn::Set(f, task.slope), mask_values(task.mask + k, n), logit);
    if (task.soft_cap != 0 || task.mask) store_n(logit, x + k, n);
    if (n < kLanes) logit = load_n(x + k, n, kNothing);
    not_a_number = hn::Or(not_a_number, hn::IsNaN(logit));
    largest = hn::Max(largest, logit);
  });
  const float top_of_keys = hn::GetLane(hn::MaxOfLanes(f, largest));
  float top = top_of_keys;
  if (task.learned_sink) top = std::max(top, *task.learned_sink);

  std::fill(row, x + first, 0.0f);
  std::fill(x + last, x + end, 0.0f);
  *entropy = *learned_sink_mass = *largest_weight = 0;
  if (!hn::AllFalse(f, not_a_number)) {
    *entropy = *largest_weight = std::numeric_limits<float>::quiet_NaN();
    std::fill(x + first, x + last, *entropy);
    return;
  }
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
    *learned_sink_mass = e / total;
  }
  const float inverse = 1 / total;
  const V scale = hn::Set(f, inverse);
  over(first, last,
       [&](int k, int n) HWY_ATTR { store_n(hn::Mul(load_n(x + k, n, 0), scale), x + k, n); });
  *entropy = std::log(total) - total_weighted * inverse;
  *largest_weight = hn::GetLane(hn::Mul(exp_of_negative(hn::Set(f, top_of_keys - top)), scale));
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

constexpr Kernels kernels_with(const char* name) {
  return {name,         kPanel,           kRowBlock, &pack_keys,    &pack_values, &scores,       &softmax_row,
          &weighted_values, &view_of, &decode_rows, &key_scores, &add_values, &exponentials, &add_columns, &strongest};
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
