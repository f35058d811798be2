// Rows of keys and values of every type: decoded, packed into panels, and multiplied as they lie. For each instruction set; kernels.cpp includes it.
#if defined(SINKSCOPE_ATTENTION_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef SINKSCOPE_ATTENTION_ROWS_INL_H
#undef SINKSCOPE_ATTENTION_ROWS_INL_H
#else
#define SINKSCOPE_ATTENTION_ROWS_INL_H
#endif

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include <hwy/highway.h>

#include "attention/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace sinkscope::attention::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;
constexpr F f;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(f));
constexpr int kPanel = 2 * kLanes;

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

constexpr int kUnitVectors = kRowUnit / kLanes;

HWY_ATTR HWY_INLINE float f16_value(const std::byte* from) {
  HWY_ALIGN hwy::float16_t half[8];
  std::memcpy(half, from, sizeof half[0]);
  const hn::CappedTag<float, 1> one;
  return hn::GetLane(hn::PromoteTo(one, hn::LoadU(hn::Rebind<hwy::float16_t, decltype(one)>(), half)));
}

constexpr bool is_four_bits(Element e) { return e == Element::q4_0 || e == Element::q4_channel || e == Element::q4_row; }

// Where the codes of a unit are, and the scale or grid that they belong to.
struct UnitPlace {
  const std::byte *codes, *before;
};
HWY_INLINE UnitPlace unit_place(Element element, const std::byte* row, int unit) {
  const int code_bytes = is_four_bits(element) ? kRowUnit / 2 : kRowUnit;
  constexpr int kUnitsOfGrid = Grid::kRowGroup / kRowUnit;
  switch (element) {
    case Element::q8_0:
    case Element::q4_0: return {row + unit * (2 + code_bytes) + 2, row + unit * (2 + code_bytes)};
    case Element::q8_row:
    case Element::q4_row: {
      const std::byte* before = row + unit / kUnitsOfGrid * (2 + kUnitsOfGrid * code_bytes);
      return {before + 2 + unit % kUnitsOfGrid * code_bytes, before};
    }
    default: return {row + unit * code_bytes, nullptr};
  }
}

// Codes of a unit as floats; those of ggml's types are signed.
template <Element kElement>
HWY_ATTR HWY_INLINE void load_codes(const std::byte* codes, V* to) {
  constexpr bool kSigned = kElement == Element::q8_0 || kElement == Element::q4_0;
  const hn::Rebind<int32_t, F> ints;
  if constexpr (is_four_bits(kElement)) {
    const hn::Rebind<uint8_t, F> bytes;
    const auto* q = reinterpret_cast<const uint8_t*>(codes);
    const auto low = hn::Set(ints, 15), middle = hn::Set(ints, kSigned ? 8 : 0);
    for (int v = 0; v < kUnitVectors / 2; ++v) {
      const auto both = hn::PromoteTo(ints, hn::LoadU(bytes, q + v * kLanes));
      to[v] = hn::ConvertTo(f, hn::Sub(hn::And(both, low), middle));
      to[v + kUnitVectors / 2] = hn::ConvertTo(f, hn::Sub(hn::ShiftRight<4>(both), middle));
    }
  } else {
    using Byte = std::conditional_t<kSigned, int8_t, uint8_t>;
    const hn::Rebind<Byte, F> bytes;
    const auto* q = reinterpret_cast<const Byte*>(codes);
    for (int v = 0; v < kUnitVectors; ++v) to[v] = hn::ConvertTo(f, hn::PromoteTo(ints, hn::LoadU(bytes, q + v * kLanes)));
  }
}

// The unit-th kRowUnit components of a row; of q8_channel and q4_channel the codes.
template <Element kElement>
HWY_ATTR HWY_INLINE void load_unit(const std::byte* row, int unit, V* to) {
  if constexpr (kElement == Element::f32) {
    for (int v = 0; v < kUnitVectors; ++v) to[v] = hn::LoadU(f, reinterpret_cast<const float*>(row) + unit * kRowUnit + v * kLanes);
  } else if constexpr (kElement == Element::f16 || kElement == Element::bf16) {
    using Half = std::conditional_t<kElement == Element::f16, hwy::float16_t, hwy::bfloat16_t>;
    const hn::Rebind<Half, F> half;
    const auto* from = reinterpret_cast<const Half*>(row) + unit * kRowUnit;
    for (int v = 0; v < kUnitVectors; ++v) to[v] = hn::PromoteTo(f, hn::LoadU(half, from + v * kLanes));
  } else {
    const UnitPlace at = unit_place(kElement, row, unit);
    load_codes<kElement>(at.codes, to);
    if constexpr (kElement == Element::q8_0 || kElement == Element::q4_0) {
      const V scale = hn::Set(f, f16_value(at.before));
      for (int v = 0; v < kUnitVectors; ++v) to[v] = hn::Mul(scale, to[v]);
    } else if constexpr (kElement == Element::q8_row || kElement == Element::q4_row) {
      const Grid grid = std::bit_cast<Grid>(*reinterpret_cast<const std::array<std::byte, sizeof(Grid)>*>(at.before));
      const float step = std::bit_cast<float>(Grid::kStepBits + (uint32_t{grid.step} << 20));
      const V scale = hn::Set(f, step), zero = hn::Set(f, step * static_cast<float>(zero_unit(kElement) * grid.zero));
      for (int v = 0; v < kUnitVectors; ++v) to[v] = hn::MulAdd(to[v], scale, zero);
    }
  }
}

// Whole units, as the blocks of q8_0 and q4_0 are.
template <Element kElement>
HWY_ATTR void decode_units(const std::byte* from, int n, float* to) {
  for (int unit = 0; unit < n / kRowUnit; ++unit) {
    V values[kUnitVectors];
    load_unit<kElement>(from, unit, values);
    for (int v = 0; v < kUnitVectors; ++v) hn::StoreU(values[v], f, to + unit * kRowUnit + v * kLanes);
  }
}

// Steps of kLanes channels, and their zeros in codes.
HWY_ATTR HWY_INLINE void load_grids(const Rows& rows, int channel, V* step, V* zero) {
  const hn::Rebind<int32_t, F> ints;
  const hn::Rebind<uint16_t, F> pairs;
  const auto grids = hn::PromoteTo(ints, hn::LoadU(pairs, reinterpret_cast<const uint16_t*>(rows.channels + channel)));
  const auto steps = hn::ShiftLeft<20>(hn::And(grids, hn::Set(ints, 255)));
  *step = hn::BitCast(f, hn::Add(steps, hn::Set(ints, static_cast<int32_t>(Grid::kStepBits))));
  const auto zeros = hn::ShiftRight<24>(hn::ShiftLeft<16>(grids));  // the second byte, with its sign
  *zero = hn::Mul(hn::ConvertTo(f, zeros), hn::Set(f, static_cast<float>(zero_unit(rows.element))));
}

template <Element kElement>
HWY_ATTR void decode_channels(const Rows& rows, const std::byte* from, int d, float* to) {
  decode_units<kElement>(from, d, to);
  for (int c = 0; c < d; c += kLanes) {
    V step, zero;
    load_grids(rows, c, &step, &zero);
    hn::StoreU(hn::Mul(hn::Add(hn::LoadU(f, to + c), zero), step), f, to + c);
  }
}

HWY_ATTR void fold_channels(const Rows& rows, int d, const float* q, int n_row, float* folded, float* apart) {
  for (int r = 0; r < n_row; ++r, q += d, folded += d) {
    V sum = hn::Zero(f);
    for (int c = 0; c < d; c += kLanes) {
      V step, zero;
      load_grids(rows, c, &step, &zero);
      const V x = hn::Mul(hn::LoadU(f, q + c), step);
      hn::StoreU(x, f, folded + c);
      sum = hn::MulAdd(x, zero, sum);
    }
    apart[r] = hn::GetLane(hn::SumOfLanes(f, sum));
  }
}

// One row of keys or values as floats: in place where it is float already, else decoded into `scratch`.
HWY_ATTR const float* decoded_row(const Rows& rows, const std::byte* from, int d, float* scratch) {
  switch (rows.element) {
    case Element::f32: return reinterpret_cast<const float*>(from);
    case Element::f16: decode_halves<hwy::float16_t>(from, d, scratch); break;
    case Element::bf16: decode_halves<hwy::bfloat16_t>(from, d, scratch); break;
    case Element::q8_0: decode_units<Element::q8_0>(from, d, scratch); break;
    case Element::q4_0: decode_units<Element::q4_0>(from, d, scratch); break;
    case Element::q8_channel: decode_channels<Element::q8_channel>(rows, from, d, scratch); break;
    case Element::q4_channel: decode_channels<Element::q4_channel>(rows, from, d, scratch); break;
    case Element::q8_row: decode_units<Element::q8_row>(from, d, scratch); break;
    case Element::q4_row: decode_units<Element::q4_row>(from, d, scratch); break;
    case Element::coded: rows.decode(from, scratch, d); break;
  }
  return scratch;
}

// Rows as floats [n_head_kv, n, d_stride], for what the kernels below do not read by themselves.
HWY_ATTR void decode_rows(const Rows& rows, int stream, int n_head_kv, int first, int n, int d, int d_stride, float* to) {
  for (int h = 0; h < n_head_kv; ++h)
    for (int k = 0; k < n; ++k, to += d_stride) {
      const float* decoded = decoded_row(rows, rows.row(stream, h, first + k), d, to);
      if (decoded != to) std::copy_n(decoded, d, to);
      std::fill(to + d, to + d_stride, 0.0f);
    }
}

// --- few queries: rows of keys and values as they lie, kRowUnit components at a time

// Rows of a register block: with 4 keys or 4 vectors each they fill the registers.
constexpr int kFewRows = kLanes >= 16 ? 6 : 3;

// The sums of 4 vectors, of which the first n are written to `to`.
HWY_ATTR HWY_INLINE void store_sums(const V* v, int n, float* to) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < n; ++i) to[i] = hn::GetLane(v[i]);
#else
  // Within blocks of 4 lanes: [0, 1] added, then all four.
  const hn::RepartitionToWide<F> pairs;
  const auto two = [&](V a, V b) HWY_ATTR { return hn::Add(hn::InterleaveLower(f, a, b), hn::InterleaveUpper(f, a, b)); };
  const auto low = hn::BitCast(pairs, two(v[0], v[1])), high = hn::BitCast(pairs, two(v[2], v[3]));
  const V blocks = hn::Add(hn::BitCast(f, hn::InterleaveLower(pairs, low, high)), hn::BitCast(f, hn::InterleaveUpper(pairs, low, high)));
  const auto store = [&](auto d, auto sums) HWY_ATTR {
    if (n == 4) hn::StoreU(sums, d, to);
    else hn::BlendedStore(sums, hn::FirstN(d, n), d, to);
  };
  const auto fold = [](auto d, auto sums) HWY_ATTR {
    const hn::Half<decltype(d)> half;
    return hn::Add(hn::LowerHalf(half, sums), hn::UpperHalf(half, sums));
  };
  if constexpr (kLanes == 16) {
    const hn::Half<F> eight;
    const hn::Half<decltype(eight)> four;
    store(four, fold(eight, fold(f, blocks)));
  } else if constexpr (kLanes == 8) {
    store(hn::Half<F>(), fold(f, blocks));
  } else {
    store(f, blocks);
  }
#endif
}

// Rows of a KV head, and what is read after those of all KV heads: it comes from memory meanwhile.
struct RowRun {
  const std::byte* data;
  size_t stride, unit_bytes, row_bytes;
  const std::byte* next;
  const std::byte* at(int k) const { return data + k * stride; }
  // Into the L2 cache: there may be more lines on their way to it than to the L1 cache.
  HWY_INLINE void prefetch(int k, int unit) const { __builtin_prefetch(next + k * row_bytes + unit * unit_bytes, 0, 2); }
  // The row 4 behind this one, from there into the L1 cache.
  HWY_INLINE void prefetch_soon(const std::byte* row, int unit) const { __builtin_prefetch(row + 4 * stride + unit * unit_bytes, 0, 3); }
};

HWY_INLINE RowRun run_of(const Rows& rows, int stream, int head_kv, int first, int n, int d) {
  constexpr size_t kUnitBytes[] = {128, 64, 64, 34, 18, 32, 16, 33, 17};  // by Element
  const size_t unit_bytes = kUnitBytes[static_cast<int>(rows.element)], row_bytes = unit_bytes * (d / kRowUnit);
  // Heads that lie side by side share the next run out among them, in the order of memory.
  const bool side_by_side = rows.head_stride < rows.key_stride;
  const std::byte* behind = rows.row(stream, side_by_side ? 0 : head_kv, first + n) + (side_by_side ? head_kv * n * row_bytes : 0);
  return {rows.row(stream, head_kv, first), rows.key_stride, unit_bytes, row_bytes, rows.next ? rows.next : behind};
}

// kRows queries against up to 4 keys.
template <Element kElement, int kRows>
HWY_ATTR HWY_INLINE void four_keys(const float* HWY_RESTRICT q, int d, const RowRun& run, int first, int n, float* HWY_RESTRICT logits,
                                   size_t stride) {
  V sums[kRows][4];
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r)
    for (int k = 0; k < 4; ++k) sums[r][k] = hn::Zero(f);
  const std::byte* key[4];
  for (int k = 0; k < 4; ++k) key[k] = run.at(first + std::min(k, n - 1));
  for (int unit = 0; unit < d / kRowUnit; ++unit) {
    const float* part = q + unit * kRowUnit;
    HWY_UNROLL(4)
    for (int k = 0; k < 4; ++k) {
      run.prefetch(first + k, unit);
      run.prefetch_soon(key[k], unit);
      V x[kUnitVectors];
      load_unit<kElement>(key[k], unit, x);
      HWY_UNROLL(6)
      for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kUnitVectors; ++v)
          sums[r][k] = hn::MulAdd(hn::LoadU(f, part + static_cast<size_t>(r) * d + v * kLanes), x[v], sums[r][k]);
    }
  }
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r) store_sums(sums[r], n, logits + r * stride);
}

// Body is called with the number of rows, at most kFewRows, as a constant.
template <class Body>
HWY_ATTR HWY_INLINE void over_row_blocks(int n_row, const Body& body) {
  for (int r = 0; r < n_row; r += kFewRows) switch (std::min(kFewRows, n_row - r)) {
      case 6: body(r, std::integral_constant<int, std::min(6, kFewRows)>()); break;
      case 5: body(r, std::integral_constant<int, std::min(5, kFewRows)>()); break;
      case 4: body(r, std::integral_constant<int, std::min(4, kFewRows)>()); break;
      case 3: body(r, std::integral_constant<int, 3>()); break;
      case 2: body(r, std::integral_constant<int, 2>()); break;
      default: body(r, std::integral_constant<int, 1>());
    }
}

template <Element kElement>
HWY_ATTR void scores_of(const RowRun& run, int n, int d, const float* q, int n_row, float* logits, size_t stride) {
  for (int k = 0; k < n; k += 4) {
    const int n_key = std::min(4, n - k);
    over_row_blocks(n_row, [&](int r, auto rows) HWY_ATTR {
      four_keys<kElement, rows()>(q + static_cast<size_t>(r) * d, d, run, k, n_key, logits + r * stride + k, stride);
    });
  }
}

// kRows weights against kUnits units of components.
template <Element kElement, int kRows, int kUnits>
HWY_ATTR HWY_INLINE void add_units(const float* HWY_RESTRICT weights, size_t stride, const RowRun& run, int n, int unit, int d,
                                   float* HWY_RESTRICT out) {
  V sums[kRows][kUnits * kUnitVectors];
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kUnits * kUnitVectors; ++v) sums[r][v] = hn::LoadU(f, out + static_cast<size_t>(r) * d + v * kLanes);
  for (int k = 0; k < n; ++k) {
    V value[kUnits * kUnitVectors];
    const std::byte* row = run.at(k);
    for (int u = 0; u < kUnits; ++u) {
      run.prefetch(k, unit + u);
      run.prefetch_soon(row, unit + u);
      load_unit<kElement>(row, unit + u, value + u * kUnitVectors);
    }
    HWY_UNROLL(6)
    for (int r = 0; r < kRows; ++r) {
      const V w = hn::Set(f, weights[r * stride + k]);
      for (int v = 0; v < kUnits * kUnitVectors; ++v) sums[r][v] = hn::MulAdd(w, value[v], sums[r][v]);
    }
  }
  HWY_UNROLL(6)
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kUnits * kUnitVectors; ++v) hn::StoreU(sums[r][v], f, out + static_cast<size_t>(r) * d + v * kLanes);
}

template <Element kElement>
HWY_ATTR void values_of(const RowRun& run, int n, int d, const float* weights, size_t stride, int n_row, float* out) {
  constexpr int kUnits = std::max(1, 4 / kUnitVectors);
  over_row_blocks(n_row, [&](int r, auto rows) HWY_ATTR {
    const float* w = weights + r * stride;
    float* to = out + static_cast<size_t>(r) * d;
    int unit = 0;
    for (; unit + kUnits <= d / kRowUnit; unit += kUnits) add_units<kElement, rows(), kUnits>(w, stride, run, n, unit, d, to + unit * kRowUnit);
    for (; unit < d / kRowUnit; ++unit) add_units<kElement, rows(), 1>(w, stride, run, n, unit, d, to + unit * kRowUnit);
  });
}

// Calls body with the type of rows as a constant.
template <class Body>
HWY_ATTR HWY_INLINE void by_element(Element element, const Body& body) {
  switch (element) {
    case Element::f32: return body(std::integral_constant<Element, Element::f32>());
    case Element::f16: return body(std::integral_constant<Element, Element::f16>());
    case Element::bf16: return body(std::integral_constant<Element, Element::bf16>());
    case Element::q8_0: return body(std::integral_constant<Element, Element::q8_0>());
    case Element::q4_0: return body(std::integral_constant<Element, Element::q4_0>());
    case Element::q8_channel: return body(std::integral_constant<Element, Element::q8_channel>());
    case Element::q4_channel: return body(std::integral_constant<Element, Element::q4_channel>());
    case Element::q8_row: return body(std::integral_constant<Element, Element::q8_row>());
    case Element::q4_row: return body(std::integral_constant<Element, Element::q4_row>());
    case Element::coded: return;  // decode_rows first
  }
}

HWY_ATTR void key_scores(const Rows& rows, int stream, int head_kv, int first, int n, int d, const float* q, int n_row,
                         float* logits, size_t stride) {
  by_element(rows.element, [&](auto element) HWY_ATTR {
    scores_of<element()>(run_of(rows, stream, head_kv, first, n, d), n, d, q, n_row, logits, stride);
  });
}

HWY_ATTR void add_values(const Rows& rows, int stream, int head_kv, int first, int n, int d, const float* weights, size_t stride,
                         int n_row, float* out) {
  by_element(rows.element, [&](auto element) HWY_ATTR {
    values_of<element()>(run_of(rows, stream, head_kv, first, n, d), n, d, weights, stride, n_row, out);
  });
}

HWY_ATTR void pack_keys(const Rows& rows, int stream, int head_kv, int first, int n, int key, int d, float* panels, float* scratch) {
  for (int i = 0; i < n; ++i, ++key) {
    float* HWY_RESTRICT to = panels + static_cast<size_t>(key / kPanel) * d * kPanel + key % kPanel;
    const float* HWY_RESTRICT from = decoded_row(rows, rows.row(stream, head_kv, first + i), d, scratch);
    for (int c = 0; c < d; ++c) to[c * kPanel] = from[c];
  }
}

HWY_ATTR void pack_values(const Rows& rows, int stream, int head_kv, int first, int n, int key, int d, int n_key, float* panels,
                          float* scratch) {
  for (int i = 0; i < n; ++i, ++key) {
    const float* HWY_RESTRICT from = decoded_row(rows, rows.row(stream, head_kv, first + i), d, scratch);
    for (int c = 0; c < d; c += kPanel) {
      float* HWY_RESTRICT to = panels + (static_cast<size_t>(c / kPanel) * n_key + key) * kPanel;
      const int width = std::min(kPanel, d - c);
      for (int j = 0; j < width; ++j) to[j] = from[c + j];
      for (int j = width; j < kPanel; ++j) to[j] = 0;
    }
  }
}

}  // namespace sinkscope::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
