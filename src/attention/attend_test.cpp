#include "attention/attend.h"

#include <cmath>
#include <cstring>
#include <random>
#include <stdexcept>

#include <gtest/gtest.h>

#include "attention/reference.h"
#include "sinkscope/error.h"

namespace sinkscope::attention {
namespace {

bool close(float got, double want, double tolerance) {  // NaN fails
  return std::abs(got - want) <= tolerance * (1 + std::abs(want));
}

uint16_t to_f16(float v) {  // exact for the values used here: few bits, no subnormals, infinity
  if (std::isinf(v)) return v < 0 ? 0xFC00 : 0x7C00;
  if (v == 0) return 0;
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return static_cast<uint16_t>(bits >> 16 & 0x8000) | static_cast<uint16_t>(((bits >> 23 & 255) - 112) << 10) |
         static_cast<uint16_t>(bits >> 13 & 1023);
}

uint16_t to_bf16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return static_cast<uint16_t>(bits >> 16);
}

// A stand-in for the coded types of a model file: one byte a value.
void decode_bytes(const void* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(static_cast<const int8_t*>(from)[i]) / 64;
}

enum class Masking { none, causal, window, alibi, holes, blind_rows };

struct Case {
  const char* name;
  int n_stream, n_query, n_key, n_head, n_head_kv, d_key, d_value;
  Element element = Element::f32;
  Masking masking = Masking::causal;
  bool per_head_mask = false;
  bool learned_sink = false;
  float max_bias = 0, soft_cap = 0;
  bool edited = false;  // another edit for each head
  bool learned_key = false, sigmoid = false;
};

// Owns what a Call points to.
class Operands {
 public:
  explicit Operands(const Case& c) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, size_t n) {
      values.resize(n);
      for (float& v : values) v = std::round(normal(random) * 64) / 64;  // exact in every type
    };
    const size_t n_q = static_cast<size_t>(c.n_stream) * c.n_head * c.n_query, n_k = static_cast<size_t>(c.n_stream) * c.n_head_kv * c.n_key;
    fill(q_, n_q * c.d_key);
    fill(k_, n_k * c.d_key);
    fill(v_, n_k * c.d_value);
    fill(learned_sink_, c.n_head);
    fill(learned_key_, static_cast<size_t>(c.n_head_kv) * c.d_key);
    fill(learned_value_, static_cast<size_t>(c.n_head_kv) * c.d_value);
    out.assign(n_q * c.d_value, -1);

    call.layer = 3;
    call.n_stream = c.n_stream;
    call.n_query = c.n_query;
    call.n_key = c.n_key;
    call.n_head = c.n_head;
    call.n_head_kv = c.n_head_kv;
    call.d_key = c.d_key;
    call.d_value = c.d_value;
    call.q = q_.data();
    call.q_query_stride = c.d_key;
    call.q_head_stride = static_cast<size_t>(c.n_query) * c.d_key;
    call.q_stream_stride = call.q_head_stride * c.n_head;
    call.k = rows(k_, c, c.d_key, k_coded_);
    call.v = rows(v_, c, c.d_value, v_coded_);
    call.scale = 1 / std::sqrt(static_cast<float>(c.d_key));
    call.max_bias = c.max_bias;
    call.soft_cap = c.soft_cap;
    call.learned_sink = c.learned_sink ? learned_sink_.data() : nullptr;
    if (c.learned_key) call.learned_key = learned_key_.data(), call.learned_value = learned_value_.data();
    call.sigmoid = c.sigmoid;
    call.out = out.data();
    if (c.masking != Masking::none) make_mask(c, random);
    call.first_key = c.n_key - c.n_query;
    if (c.edited) make_edits(c);
  }

  Call call;
  std::vector<float> out;

 private:
  // Blocks of 32: scale 1/64, and the values as small integers.
  static Rows blocks(const std::vector<float>& values, const Case& c, int d, std::vector<std::byte>& coded) {
    const bool bytes = c.element == Element::q8_0;
    const size_t block = bytes ? 34 : 18;
    coded.assign(values.size() / 32 * block, std::byte{});
    for (size_t i = 0; i < values.size(); ++i) {
      std::byte* to = coded.data() + i / 32 * block;
      const uint16_t scale = to_f16(1.0f / (bytes ? 64 : 4));
      std::memcpy(to, &scale, sizeof scale);
      const size_t j = i % 32;
      if (bytes) to[2 + j] = std::byte(static_cast<uint8_t>(static_cast<int8_t>(std::clamp(values[i] * 64, -127.0f, 127.0f))));
      else to[2 + j % 16] |= std::byte(static_cast<uint8_t>(static_cast<int>(std::clamp(values[i] * 4, -8.0f, 7.0f)) + 8) << (j < 16 ? 0 : 4));
    }
    const size_t row = d / 32 * block, head = row * c.n_key;
    return {coded.data(), row, head, head * c.n_head_kv, c.element, nullptr};
  }

  Rows rows(const std::vector<float>& values, const Case& c, int d, std::vector<std::byte>& coded) {
    if (c.element == Element::q8_0 || c.element == Element::q4_0) return blocks(values, c, d, coded);
    const size_t size = c.element == Element::f32 ? 4 : c.element == Element::coded ? 1 : 2;
    coded.resize(values.size() * size);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half = c.element == Element::f16 ? to_f16(values[i]) : to_bf16(values[i]);
      const auto byte = static_cast<int8_t>(std::clamp(values[i] * 64, -127.0f, 127.0f));
      const void* from = c.element == Element::f32 ? static_cast<const void*>(&values[i])
                         : c.element == Element::coded ? static_cast<const void*>(&byte) : static_cast<const void*>(&half);
      std::memcpy(coded.data() + i * size, from, size);
    }
    const size_t row = d * size, head = row * c.n_key;
    return {coded.data(), row, head, head * c.n_head_kv, c.element, decode_bytes};
  }

  void make_mask(const Case& c, std::mt19937& random) {
    const int n_head = c.per_head_mask ? c.n_head : 1;
    mask_.resize(static_cast<size_t>(c.n_stream) * n_head * c.n_query * c.n_key);
    size_t at = 0;
    for (int s = 0; s < c.n_stream; ++s)
      for (int h = 0; h < n_head; ++h)
        for (int i = 0; i < c.n_query; ++i)
          for (int k = 0; k < c.n_key; ++k) {
            const int position = c.n_key - c.n_query + i, distance = position - k;
            bool visible = distance >= 0;
            if (c.masking == Masking::window) visible &= distance < 9;
            if (c.masking == Masking::holes) visible &= distance == 0 || random() % 3 != 0;
            if (c.masking == Masking::blind_rows) visible &= i % 3 != 0;
            const float bias = c.masking == Masking::alibi ? -static_cast<float>(distance) : 0;
            mask_[at++] = to_f16(visible ? bias : -INFINITY);
          }
    call.mask = {mask_.data(), static_cast<size_t>(c.n_key), static_cast<size_t>(c.n_query) * c.n_key,
                 static_cast<size_t>(c.n_query) * c.n_key * n_head, n_head, c.n_stream};
  }

  void make_edits(const Case& c) {
    bias_.assign(c.n_key, 0);
    bias_[0] = -INFINITY;
    bias_[2] = -1.5f;
    bias_[c.n_key - 1] = bias_[c.n_key - c.n_query / 2 - 1] = 2;  // among them keys of queries themselves
    edits_ = {HeadEdit{.bias = bias_}, HeadEdit{.bias = bias_, .learned_sink = &learned_sink_[1]}, HeadEdit{.calmed = calmed_, .calm = .25f},
              HeadEdit{.silent = true}};
    edits_.resize(c.n_head);
    call.edits = edits_;
  }

  std::vector<float> q_, k_, v_, learned_sink_, learned_key_, learned_value_, bias_;
  std::vector<HeadEdit> edits_;
  const std::vector<int> calmed_ = {3, 5, 11};
  std::vector<std::byte> k_coded_, v_coded_;
  std::vector<uint16_t> mask_;
};

// Puts tiles together to the whole map again, and counts how often each row was shown.
class WholeMap : public Probe {
 public:
  void begin(const AttentionShape& shape) override {
    shape_ = shape;
    const size_t n_row = static_cast<size_t>(shape.n_stream) * shape.n_head * shape.n_query;
    weights.assign(n_row * shape.n_key, 0);
    entropy.assign(n_row, 0);
    learned_sink_mass.assign(n_row, 0);
    log_sum.assign(n_row, 0);
    times_seen.assign(n_row, 0);
    key_n_row.assign(shape.key_n_row.begin(), shape.key_n_row.end());
  }
  void see(const Tile& t) override {
    for (int r = 0; r < t.n_row; ++r) {
      const size_t row = (static_cast<size_t>(t.stream) * shape_.n_head + t.head) * shape_.n_query + t.first_query + r;
      std::copy_n(t.row(r), t.key_end - t.key_begin, weights.data() + row * shape_.n_key + t.key_begin);
      entropy[row] = t.entropy[r];
      if (t.key_begin < t.key_end && !std::isnan(t.entropy[r])) {
        EXPECT_EQ(t.largest_weight[r], *std::max_element(t.row(r), t.row(r) + (t.key_end - t.key_begin)));
      }
      learned_sink_mass[row] = t.learned_sink_mass[r];
      log_sum[row] = t.log_sum[r];
      ++times_seen[row];
    }
    EXPECT_LT(t.slot, shape_.n_slot);
  }
  void merge(int, int, int n_head) override { n_merged += n_head; }

  std::vector<float> weights, entropy, learned_sink_mass, log_sum;
  std::vector<int> times_seen;
  std::vector<uint32_t> key_n_row;
  int n_merged = 0;

 private:
  AttentionShape shape_;
};

const Case kCases[] = {
    {"one_query_one_key", 1, 1, 1, 1, 1, 8, 8},
    {"odd_lengths", 1, 13, 37, 2, 2, 24, 40},
    {"gqa_of_three", 1, 50, 77, 9, 3, 64, 64},
    {"mqa_mla_sizes", 1, 7, 33, 4, 1, 192, 128},
    {"head_256", 1, 9, 65, 2, 1, 256, 256},
    {"wide_head_mla", 1, 5, 19, 2, 1, 576, 512},
    {"many_tiles_and_slots", 1, 900, 930, 2, 1, 16, 16},
    {"streams", 3, 11, 20, 4, 2, 32, 32},
    {"no_mask", 1, 17, 40, 4, 2, 32, 32, Element::f32, Masking::none},
    {"window", 1, 60, 90, 4, 2, 32, 32, Element::f16, Masking::window},
    {"holes", 1, 21, 50, 4, 2, 32, 32, Element::f32, Masking::holes},
    {"mask_per_head_and_stream", 2, 21, 50, 4, 2, 32, 32, Element::f32, Masking::holes, true},
    {"rows_that_see_nothing", 1, 21, 50, 4, 2, 32, 32, Element::f32, Masking::blind_rows},
    {"rows_that_see_only_the_learned_sink", 1, 21, 50, 4, 2, 32, 32, Element::f32, Masking::blind_rows, false, true},
    {"alibi_12_heads", 1, 30, 50, 12, 12, 16, 16, Element::f16, Masking::alibi, false, false, 8},
    {"soft_cap", 1, 30, 50, 4, 2, 32, 32, Element::f32, Masking::causal, false, false, 0, 5},
    {"soft_cap_alibi_learned_sink", 1, 30, 50, 4, 2, 32, 32, Element::f32, Masking::alibi, false, true, 8, 5},
    {"learned_sink", 1, 30, 50, 4, 2, 32, 32, Element::f16, Masking::causal, false, true},
    {"f16", 1, 30, 50, 4, 2, 36, 36, Element::f16},
    {"bf16", 1, 30, 50, 4, 2, 36, 36, Element::bf16},
    {"coded", 1, 30, 50, 4, 2, 36, 36, Element::coded},
    {"q8_0", 1, 30, 50, 4, 2, 64, 96, Element::q8_0},
    {"q4_0", 1, 30, 50, 4, 2, 96, 32, Element::q4_0},
    {"edited", 1, 30, 60, 6, 3, 32, 32, Element::f16, Masking::causal, false, false, 0, 0, true},
    {"edited_soft_cap_holes_learned_sink", 1, 21, 50, 4, 2, 32, 32, Element::f32, Masking::holes, false, true, 0, 5, true},
    {"learned_key", 2, 30, 50, 4, 2, 32, 24, Element::f16, Masking::causal, false, false, 0, 0, false, true},
    {"learned_key_alone_is_seen", 1, 21, 50, 4, 2, 32, 32, Element::f32, Masking::blind_rows, false, false, 0, 0, false, true},
    {"learned_key_edited_holes", 1, 21, 50, 4, 2, 32, 32, Element::f32, Masking::holes, false, false, 0, 0, true, true},
    {"sigmoid", 1, 30, 50, 4, 2, 32, 32, Element::f16, Masking::causal, false, false, 0, 0, false, false, true},
    {"sigmoid_that_sees_nothing", 1, 21, 50, 4, 2, 32, 32, Element::f32, Masking::blind_rows, false, false, 0, 0, false, false, true},
    {"sigmoid_soft_cap_alibi", 1, 30, 50, 4, 2, 32, 32, Element::f32, Masking::alibi, false, false, 8, 5, false, false, true},
    {"sigmoid_edited", 1, 30, 60, 6, 3, 32, 32, Element::f16, Masking::causal, false, false, 0, 0, true, false, true},
    // Few queries: keys and values as they lie.
    {"few_f32", 1, 1, 300, 9, 3, 64, 64},
    {"few_f16_odd_sizes", 1, 2, 1037, 5, 1, 36, 20, Element::f16},
    {"few_bf16_head_256", 1, 1, 530, 4, 1, 256, 256, Element::bf16},
    {"few_q8_0", 1, 3, 600, 8, 2, 128, 64, Element::q8_0},
    {"few_q4_0", 1, 4, 600, 7, 1, 64, 128, Element::q4_0},
    {"few_coded_mla", 1, 1, 70, 17, 1, 576, 512, Element::coded},
    {"few_in_streams", 3, 2, 290, 4, 2, 32, 32, Element::f16},
    {"few_without_a_mask", 1, 1, 40, 4, 2, 32, 32, Element::f16, Masking::none},
    {"few_window", 1, 2, 900, 4, 2, 32, 32, Element::f16, Masking::window},
    {"few_holes_per_head_and_stream", 2, 3, 500, 4, 2, 32, 32, Element::f16, Masking::holes, true},
    {"few_that_see_nothing", 1, 1, 50, 4, 2, 32, 32, Element::f32, Masking::blind_rows, false, true},
    {"few_soft_cap_alibi_learned_sink", 1, 2, 280, 12, 4, 32, 32, Element::f16, Masking::alibi, false, true, 8, 5},
    {"few_edited", 1, 2, 280, 4, 2, 32, 32, Element::f16, Masking::causal, false, true, 0, 0, true},
    {"few_learned_key", 2, 2, 280, 4, 2, 32, 36, Element::f16, Masking::causal, false, false, 0, 0, false, true},
    {"few_learned_key_edited", 1, 2, 280, 4, 2, 32, 32, Element::f16, Masking::causal, false, false, 0, 0, true, true},
    {"few_sigmoid", 1, 3, 280, 4, 2, 32, 32, Element::f16, Masking::causal, false, false, 0, 0, false, false, true},
};

class AttendTest : public testing::TestWithParam<std::tuple<const Kernels*, Case>> {};

TEST_P(AttendTest, EqualsTheDoubleReference) {
  const auto& [kernels, c] = GetParam();
  Operands operands(c);
  const Reference want = reference(operands.call);
  WholeMap map;
  Probe* probes[] = {&map};
  Workspace work;
  attend(operands.call, probes, *kernels, 2, work);

  constexpr double kTolerance = 1e-5;
  for (size_t i = 0; i < want.out.size(); ++i) ASSERT_TRUE(close(operands.out[i], want.out[i], kTolerance)) << "out " << i << ": " << operands.out[i] << " for " << want.out[i];
  for (size_t i = 0; i < want.weights.size(); ++i) ASSERT_TRUE(close(map.weights[i], want.weights[i], kTolerance)) << "weight " << i << ": " << map.weights[i] << " for " << want.weights[i];
  for (size_t i = 0; i < want.entropy.size(); ++i) {
    ASSERT_TRUE(close(map.entropy[i], want.entropy[i], kTolerance)) << "entropy " << i << ": " << map.entropy[i] << " for " << want.entropy[i];
    ASSERT_TRUE(close(map.learned_sink_mass[i], want.learned_sink_mass[i], kTolerance)) << "learned sink " << i;
    ASSERT_TRUE(map.log_sum[i] == want.log_sum[i] || close(map.log_sum[i], want.log_sum[i], kTolerance)) << "log sum " << i << ": " << map.log_sum[i] << " for " << want.log_sum[i];
    ASSERT_EQ(map.times_seen[i], 1) << "row " << i;
  }
  EXPECT_EQ(map.n_merged, c.n_stream * c.n_head);
}

TEST_P(AttendTest, SameBitsForAnyThreadsAndProbes) {
  const auto& [kernels, c] = GetParam();
  Operands alone(c), watched(c);
  WholeMap map;
  Probe* probes[] = {&map, &map};
  Workspace work;
  attend(alone.call, {}, *kernels, 1, work);
  attend(watched.call, probes, *kernels, 3, work);
  EXPECT_EQ(std::memcmp(alone.out.data(), watched.out.data(), alone.out.size() * sizeof(float)), 0);
}

TEST_P(AttendTest, EditsThatChangeNothingChangeNoBit) {
  const auto& [kernels, c] = GetParam();
  if (c.edited) return;
  Operands plain(c), edited(c);
  const std::vector<float> bias(c.n_key, 0);
  const int calmed[] = {1};
  std::vector<HeadEdit> edits(c.n_head, HeadEdit{.bias = bias, .calmed = std::span(calmed, c.n_key > 1 ? 1 : 0)});
  if (c.learned_sink)
    for (int h = 0; h < c.n_head; ++h) edits[h].learned_sink = plain.call.learned_sink + h;
  edited.call.edits = edits;
  Workspace work;
  attend(plain.call, {}, *kernels, 2, work);
  attend(edited.call, {}, *kernels, 2, work);
  EXPECT_EQ(std::memcmp(plain.out.data(), edited.out.data(), plain.out.size() * sizeof(float)), 0);
}

TEST_P(AttendTest, CountsTheRowsThatSeeEachKey) {
  const auto& [kernels, c] = GetParam();
  Operands operands(c);
  WholeMap map;
  Probe* probes[] = {&map};
  Workspace work;
  attend(operands.call, probes, *kernels, 2, work);
  const int n_head = c.per_head_mask ? c.n_head : 1, n_stream = operands.call.mask.data ? c.n_stream : 1;
  for (int s = 0; s < n_stream; ++s)
    for (int h = 0; h < n_head; ++h)
      for (int k = 0; k < c.n_key; ++k) {
        uint32_t want = 0;
        for (int i = 0; i < c.n_query; ++i) want += !operands.call.mask.data || operands.call.mask.row(s, h, i)[k] != 0xFC00;
        ASSERT_EQ(map.key_n_row[(static_cast<size_t>(s) * n_head + h) * c.n_key + k], want) << "key " << k;
      }
}

INSTANTIATE_TEST_SUITE_P(
    EveryIsa, AttendTest, testing::Combine(testing::ValuesIn(available_kernels().begin(), available_kernels().end()), testing::ValuesIn(kCases)),
    [](const auto& p) { return std::string(std::get<0>(p.param)->name) + "_" + std::get<1>(p.param).name; });

class KernelsTest : public testing::TestWithParam<const Kernels*> {};

// The L2-sized tile, row blocks and value chunks over a few hundred keys, with logits far apart.
TEST_P(KernelsTest, HoldsForLongRowsAndLargeLogits) {
  for (const int n_query : {3, 7}) {
    Operands operands({"", 1, n_query, 5000, 2, 1, 64, 64, Element::f16});
    operands.call.scale = 4;
    const Reference want = reference(operands.call);
    Workspace work;
    attend(operands.call, {}, *GetParam(), 2, work);
    for (size_t i = 0; i < want.out.size(); ++i) ASSERT_TRUE(close(operands.out[i], want.out[i], 1e-4)) << i;
  }
}

// Heads with different numbers of keys in pieces, queries turned for some of them, and a hole that nobody has.
TEST_P(KernelsTest, KeysInPiecesAreMetAsThePiecesSay) {
  for (const Element element : {Element::f32, Element::f16, Element::coded, Element::q8_0})
    for (const int n_query : {1, 3, 20}) {
      SCOPED_TRACE(n_query);
      const Case c{"", 1, n_query, 90, 4, 2, 64, 32, element, Masking::none};
      Operands operands(c);
      Call& call = operands.call;
      const auto run = [&](int head, int begin, int end, int turn) {
        attention::Run r{.begin = begin, .end = end, .k = call.k, .v = call.v, .turn = turn};
        for (Rows* rows : {&r.k, &r.v}) rows->data = rows->row(0, head, begin), rows->head_stride = rows->stream_stride = 0;
        return r;
      };
      const std::vector<attention::Run> first = {run(0, 7, 8, 1), run(0, 8, 41, 0), run(0, 41, 43, 1), run(0, 43, 90, -1)};
      const std::vector<attention::Run> second = {run(1, 33, 50, 0), run(1, 55, 90, -1)};
      const std::span<const attention::Run> runs[] = {first, second};
      std::vector<int> low, high;
      std::vector<float> cos, sin;
      for (int i = 0; i < 24; ++i) low.push_back(i), high.push_back(i + 24);  // part of the components alone
      for (const float angle : {.3f, -2.f})
        for (int i = 0; i < 24; ++i) cos.push_back(std::cos(angle / static_cast<float>(1 + i))), sin.push_back(std::sin(angle / static_cast<float>(1 + i)));
      std::vector<uint16_t> mask(4 * n_query * 90, 0xFC00);
      for (int h = 0; h < 4; ++h)
        for (int i = 0; i < n_query; ++i)
          for (const attention::Run& r : runs[h / 2])
            for (int k = r.begin; k < r.end && k < 70 + i; ++k) mask[(h * n_query + i) * 90 + k] = 0;
      call.mask = {.data = mask.data(), .row_stride = 90, .head_stride = static_cast<size_t>(90 * n_query), .stream_stride = 0, .n_head = 4};
      call.runs = runs;
      call.turns = {low, high, cos, sin};
      const Reference want = reference(call);
      Workspace work;
      attend(call, {}, *GetParam(), 2, work);
      for (size_t i = 0; i < want.out.size(); ++i) ASSERT_TRUE(close(operands.out[i], want.out[i], 2e-5)) << i;
    }
}

// Any bytes are codes, any are grids: keys with a grid for each channel of a run, values with their own.
TEST_P(KernelsTest, CodesAreWhatTheirGridsSay) {
  constexpr int kDim = 96, kRun = 16, kKeys = 64;
  for (const bool four_bits : {true, false})
    for (const int n_query : {1, 3, 20}) {
      SCOPED_TRACE(n_query);
      Operands operands({"", 1, n_query, kKeys, 4, 2, kDim, kDim});
      Call& call = operands.call;
      const Element key = four_bits ? Element::q4_channel : Element::q8_channel, value = four_bits ? Element::q4_row : Element::q8_row;
      const size_t key_bytes = four_bits ? kDim / 2 : kDim, value_bytes = key_bytes + 2 * sizeof(Grid);
      std::mt19937 random(3);
      const auto some_grid = [&] {
        const int step = 8 * (four_bits ? 16 : 12) + static_cast<int>(random() % 16), zero = static_cast<int>(random() % 30) - 20;
        return Grid{static_cast<uint8_t>(step), static_cast<int8_t>(zero)};
      };
      std::vector<std::byte> keys(2 * kKeys * key_bytes), values(2 * kKeys * value_bytes);
      std::vector<Grid> channels(2 * kKeys / kRun * kDim);
      for (std::byte& b : keys) b = static_cast<std::byte>(random());
      for (std::byte& b : values) b = static_cast<std::byte>(random());
      for (Grid& g : channels) g = some_grid();
      for (size_t row = 0; row < 2 * kKeys; ++row)
        for (const size_t group : {size_t{0}, 2 + (four_bits ? size_t{32} : size_t{64})}) {
          const Grid g = some_grid();
          std::memcpy(values.data() + row * value_bytes + group, &g, sizeof g);
        }
      std::vector<std::vector<attention::Run>> heads(2);
      for (int h = 0; h < 2; ++h)
        for (int begin = 0; begin < kKeys; begin += kRun) {
          const size_t row = h * kKeys + begin;
          heads[h].push_back({.begin = begin, .end = begin + kRun - (begin == 0 ? 3 : 0),
                              .k = {.data = keys.data() + row * key_bytes, .key_stride = key_bytes, .element = key, .channels = channels.data() + row / kRun * kDim},
                              .v = {.data = values.data() + row * value_bytes, .key_stride = value_bytes, .element = value}});
        }
      std::vector<uint16_t> mask(n_query * kKeys);
      for (int i = 0; i < n_query; ++i) std::fill_n(mask.begin() + i * kKeys + kRun - 3, 3, 0xFC00);  // nobody has these
      call.mask = {.data = mask.data(), .row_stride = kKeys};
      const std::span<const attention::Run> runs[] = {heads[0], heads[1]};
      call.runs = runs;
      call.scale *= .2f;
      const Reference want = reference(call);
      Workspace work;
      attend(call, {}, *GetParam(), 2, work);
      double largest = 0;
      for (const double x : want.out) largest = std::max(largest, std::abs(x));
      ASSERT_GT(largest, 1e-2);
      for (size_t i = 0; i < want.out.size(); ++i) ASSERT_NEAR(operands.out[i], want.out[i], 2e-5 * largest) << i;
    }
}

TEST_P(KernelsTest, NotANumberIsSeen) {
  for (const int n : {3, 5}) {
    Case c{"", 1, n, 40, 2, 1, 32, 32};
    Operands operands(c);
    std::vector<float> query(operands.call.q, operands.call.q + n * 32 * 2);
    query[2 * 32 + 3] = NAN;  // the third query of the first head
    operands.call.q = query.data();
    Workspace work;
    attend(operands.call, {}, *GetParam(), 2, work);
    for (int i = 0; i < n; ++i)
      for (int h = 0; h < 2; ++h) EXPECT_EQ(std::isnan(operands.call.output(0, i, h)[0]), i == 2 && h == 0) << i << ' ' << h;
  }
}

TEST_P(KernelsTest, ColumnsOfATileAreAddedAndCompared) {
  const std::vector<float> weights = {.5f, .25f, .25f, 9, .125f, .5f, .375f, 9};
  std::vector<float> sum(8, 1), largest(8, .3f);
  GetParam()->add_columns({.stream = 0, .head = 0, .slot = 0, .first_query = 0, .n_row = 2, .key_begin = 2, .key_end = 5,
                           .weights = weights.data(), .stride = 4, .entropy = nullptr, .largest_weight = nullptr, .learned_sink_mass = nullptr, .log_sum = nullptr},
                          sum.data(), largest.data());
  EXPECT_EQ(sum, (std::vector<float>{1, 1, 1.625f, 1.75f, 1.625f, 1, 1, 1}));
  EXPECT_EQ(largest, (std::vector<float>{.3f, .3f, .5f, .5f, .375f, .3f, .3f, .3f}));
}

TEST_P(KernelsTest, StrongestIsTheFirstOfTheLargest) {
  std::vector<float> row(37, .01f);
  row[20] = row[30] = .5f;
  EXPECT_EQ(GetParam()->strongest(row.data(), 37, .5f), 20);
  EXPECT_EQ(GetParam()->strongest(row.data(), 20, .01f), 0);
  std::fill(row.begin(), row.end(), 0.0f);
  EXPECT_EQ(GetParam()->strongest(row.data(), 37, 0), -1);
}

TEST_P(KernelsTest, SumsAreOfAllValuesAndNoMore) {
  std::vector<float> values(80);
  for (int i = 0; i < 80; ++i) values[i] = static_cast<float>(i);
  for (int n = 0; n <= 70; ++n) EXPECT_EQ(GetParam()->sum(values.data() + 3, n), static_cast<float>(n * (n - 1) / 2 + 3 * n)) << n;
}

TEST_P(KernelsTest, ExponentialsAreWithinTwoUnitsInTheLastPlace) {
  std::vector<float> x;
  for (float v = 0; v > -87; v -= .0037f) x.push_back(v);
  for (float v = -1e-9f; v > -1e-2f; v *= 1.01f) x.push_back(v);
  const size_t n = x.size();
  x.insert(x.end(), {-0.0f, -87.0f, -87.5f, -104.0f, -1e30f, -INFINITY});
  std::vector<float> got(x.size());
  GetParam()->exponentials(x.data(), static_cast<int>(x.size()), got.data());
  for (size_t i = 0; i < n; ++i) {
    const double want = std::exp(double{x[i]});
    const double ulp = std::nextafter(static_cast<float>(want), INFINITY) - static_cast<float>(want);
    ASSERT_LE(std::abs(got[i] - want), 2 * ulp) << x[i];
  }
  EXPECT_EQ(got[0], 1);
  EXPECT_EQ(got[n], 1);
  EXPECT_GT(got[n + 1], 0);
  for (size_t i = n + 2; i < x.size(); ++i) EXPECT_EQ(got[i], 0) << x[i];
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, KernelsTest, testing::ValuesIn(available_kernels().begin(), available_kernels().end()),
                         [](const auto& p) { return std::string(p.param->name); });

class Failing : public Probe {
 public:
  void begin(const AttentionShape&) override {}
  void see(const Tile&) override { throw std::runtime_error("no"); }
  void merge(int, int, int) override {}
  void end() override { ++n_end; }
  void abandon() override { ++n_abandoned; }
  int n_end = 0, n_abandoned = 0;
};

TEST_P(KernelsTest, AProbeThatFailsIsTold) {
  for (const int n_query : {2, 30}) {
    Operands operands({"", 1, n_query, 40, 2, 1, 32, 32});
    Failing probe;
    Probe* probes[] = {&probe};
    Workspace work;
    EXPECT_THROW(attend(operands.call, probes, *GetParam(), 2, work), std::runtime_error);
    EXPECT_EQ(probe.n_abandoned, 1);
    EXPECT_EQ(probe.n_end, 0);
  }
}

TEST(Isa, UnknownNamesAreRefused) {
  EXPECT_EQ(kernels("auto").name, available_kernels()[0]->name);
  EXPECT_THROW(kernels("mmx"), UsageError);
}

}  // namespace
}  // namespace sinkscope::attention
