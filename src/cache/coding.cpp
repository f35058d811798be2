#include "cache/coding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ggml.h>

#include "sinkscope/error.h"

namespace sinkscope::cache {
namespace {

using attention::Element;
using attention::Grid;

constexpr Coding kCodings[] = {
    // by Precision
    {.name = "f32", .key = Element::f32, .value = Element::f32, .settles = false},
    {.name = "f16", .key = Element::f16, .value = Element::f16, .settles = false},
    {.name = "q8_0", .key = Element::q8_0, .value = Element::q8_0, .settles = true},
    {.name = "q4_0", .key = Element::q4_0, .value = Element::q4_0, .settles = true},
    {.name = "q8c", .key = Element::q8_channel, .value = Element::q8_row, .settles = true},
    {.name = "q4c", .key = Element::q4_channel, .value = Element::q4_row, .settles = true},
};

constexpr int kUnit = 32;
constexpr float kLargest = 65504;  // of F16, which rows were

bool is_four_bits(Element e) { return e == Element::q4_channel || e == Element::q4_row; }

float step_of(uint8_t code) { return std::bit_cast<float>(Grid::kStepBits + (uint32_t{code} << 20)); }

int nearest(float x) { return static_cast<int>(std::floor(x + 0.5f)); }

// The grid with the smallest step that reaches from `low` to `high`.
Grid grid_of(float low, float high, Element element) {
  const int unit = attention::zero_unit(element), n_code = is_four_bits(element) ? 16 : 256;
  const int reach = n_code - unit;  // zero may lie up to unit - 1 codes below `low`
  const float wanted = std::max((high - low) / static_cast<float>(reach), std::max(std::abs(low), std::abs(high)) / static_cast<float>(127 * unit));
  constexpr uint32_t kOneLess = (1u << 20) - 1;
  const int64_t above = int64_t{std::bit_cast<uint32_t>(wanted)} + kOneLess - Grid::kStepBits;
  const auto step = static_cast<uint8_t>(std::clamp<int64_t>(above >> 20, 0, 255));
  const int first = nearest(low / step_of(step));
  return {step, static_cast<int8_t>(std::clamp(first >= 0 ? first / unit : -((unit - 1 - first) / unit), -128, 127))};
}

uint8_t code_of(float x, Grid grid, float inverse_step, Element element) {
  return static_cast<uint8_t>(std::clamp(nearest(x * inverse_step) - attention::zero_unit(element) * grid.zero, 0, is_four_bits(element) ? 15 : 255));
}

// Codes in units, as q8_0 and q4_0 have them. Returns the byte behind them.
std::byte* put_codes(const uint8_t* codes, int n, Element element, std::byte* to) {
  if (!is_four_bits(element)) {
    std::memcpy(to, codes, n);
    return to + n;
  }
  for (int unit = 0; unit < n; unit += kUnit)
    for (int i = 0; i < kUnit / 2; ++i) *to++ = static_cast<std::byte>(codes[unit + i] | codes[unit + kUnit / 2 + i] << 4);
  return to;
}

void encode_channels(Element element, const float* rows, int n_row, int d, std::byte* to, Grid* channels) {
  std::vector<float> low(rows, rows + d), high(low), inverse(d);
  for (int r = 1; r < n_row; ++r)
    for (int c = 0; c < d; ++c) {
      low[c] = std::min(low[c], rows[static_cast<size_t>(r) * d + c]);
      high[c] = std::max(high[c], rows[static_cast<size_t>(r) * d + c]);
    }
  for (int c = 0; c < d; ++c) {
    channels[c] = grid_of(low[c], high[c], element);
    inverse[c] = 1 / step_of(channels[c].step);
  }
  std::vector<uint8_t> codes(d);
  for (int r = 0; r < n_row; ++r) {
    for (int c = 0; c < d; ++c) codes[c] = code_of(rows[static_cast<size_t>(r) * d + c], channels[c], inverse[c], element);
    to = put_codes(codes.data(), d, element, to);
  }
}

void encode_groups(Element element, const float* rows, int n_row, int d, std::byte* to) {
  uint8_t codes[Grid::kRowGroup];
  for (int r = 0; r < n_row; ++r, rows += d)
    for (int begin = 0; begin < d; begin += Grid::kRowGroup) {
      const int n = std::min(Grid::kRowGroup, d - begin);
      const auto [low, high] = std::minmax_element(rows + begin, rows + begin + n);
      const Grid grid = grid_of(*low, *high, element);
      const float inverse = 1 / step_of(grid.step);
      std::memcpy(to, &grid, sizeof grid);
      for (int i = 0; i < n; ++i) codes[i] = code_of(rows[begin + i], grid, inverse, element);
      to = put_codes(codes, n, element, to + sizeof grid);
    }
}

}  // namespace

const Coding& coding(Precision precision) { return kCodings[static_cast<int>(precision)]; }

Precision precision(const std::string& name) {
  std::vector<const char*> names;
  for (const Coding& c : kCodings) {
    if (name == c.name) return static_cast<Precision>(&c - kCodings);
    names.push_back(c.name);
  }
  throw UsageError(fmt::format("--kv-type '{}' is unknown to owned memory; use one of: {}", name, fmt::join(names, ", ")));
}

size_t row_bytes(Element element, int d) {
  const auto n = static_cast<size_t>(d), groups = (n + Grid::kRowGroup - 1) / Grid::kRowGroup;
  switch (element) {
    case Element::f32: return 4 * n;
    case Element::q8_0: return n / kUnit * 34;
    case Element::q4_0: return n / kUnit * 18;
    case Element::q8_channel: return n;
    case Element::q4_channel: return n / 2;
    case Element::q8_row: return n + groups * sizeof(Grid);
    case Element::q4_row: return n / 2 + groups * sizeof(Grid);
    case Element::f16:
    case Element::bf16: return 2 * n;
    case Element::coded: break;
  }
  throw InternalError("rows of this element have no size of their own");
}

void encode(const attention::Kernels& kernels, Element element, const float* rows, int n_row, int d, std::byte* to, Grid* channels) {
  const size_t n = static_cast<size_t>(n_row) * d;
  if (element == Element::f32) return static_cast<void>(std::memcpy(to, rows, n * sizeof(float)));
  if (element == Element::f16) return kernels.to_halves(rows, static_cast<int>(n), reinterpret_cast<uint16_t*>(to));
  if (element == Element::q8_0 || element == Element::q4_0)
    return ggml_get_type_traits(element == Element::q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_Q4_0)->from_float_ref(rows, to, static_cast<int64_t>(n));
  // What is no number, or none of F16's, must not decide the grid of others.
  std::vector<float> sound(rows, rows + n);
  for (float& x : sound) x = x > -kLargest ? std::min(x, kLargest) : -kLargest;
  if (has_channels(element)) encode_channels(element, sound.data(), n_row, d, to, channels);
  else encode_groups(element, sound.data(), n_row, d, to);
}

}  // namespace sinkscope::cache
