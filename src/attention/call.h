// One attention operation as the kernel sees it: plain spans, nothing of ggml.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace sinkscope::attention {

// q8_0 and q4_0: ggml's blocks of 32 values, an f16 scale and then 32 signed bytes, or 16 bytes of nibbles less 8 (the low
// ones first).
// q8_channel and q4_channel: codes of 8 or 4 bits, in units of 32 as above. A component has the same Grid in all rows, see
// Rows::channels. q8_row and q4_row: before each 64 codes, and what is left, the Grid of these.
// coded: anything that `decode` knows.
enum class Element { f32, f16, bf16, q8_0, q4_0, q8_channel, q4_channel, q8_row, q4_row, coded };

// Numbers of a grid are step (code + unit zero): codes start at 0, unit is 1 for codes of 4 bits and 16 for those of 8.
// `step` is a float of 5 bits of exponent, from 2^-20 on, and 3 of mantissa.
struct Grid {
  uint8_t step = 0;
  int8_t zero = 0;

  static constexpr int kLowestExponent = -20, kRowGroup = 64;
  static constexpr uint32_t kStepBits = (127 + kLowestExponent) << 23;  // a float's, for code 0; 1 << 20 for each more
};
static_assert(sizeof(Grid) == 2);
constexpr int zero_unit(Element element) { return element == Element::q8_channel || element == Element::q8_row ? 16 : 1; }

// Rows of keys or values where somebody else keeps them: [n_stream, n_head_kv, n_key, d], strides in bytes.
struct Rows {
  const std::byte* data = nullptr;
  size_t key_stride = 0, head_stride = 0, stream_stride = 0;
  Element element = Element::f32;
  void (*decode)(const void* from, float* to, int64_t n) = nullptr;  // of Element::coded
  const Grid* channels = nullptr;                                    // of q8_channel and q4_channel: [d]
  const std::byte* next = nullptr;  // what will be read after these, as much again; null: what lies behind them

  const std::byte* row(int stream, int head_kv, int key) const {
    return data + stream * stream_stride + head_kv * head_stride + key * key_stride;
  }
};

// Added to the logits, times the head's ALiBi slope: f16 [n_stream, n_head, n_query, n_key], strides in elements.
// Fewer streams or heads than the operation has are repeated. No data: every query sees every key.
struct Mask {
  const uint16_t* data = nullptr;
  size_t row_stride = 0, head_stride = 0, stream_stride = 0;
  int n_head = 1, n_stream = 1;

  const uint16_t* row(int stream, int head, int query) const {
    return data + stream % n_stream * stream_stride + head % n_head * head_stride + query * row_stride;
  }
};

// Keys [begin, end) of a KV head and their values, kept somewhere of their own: rows k and v from 0 on.
struct Run {
  int begin = 0, end = 0;
  Rows k, v;
  int turn = -1;  // of Call::turns: how queries are turned before they meet these keys; -1: not at all
};

// A rotation of queries, by pairs of components: RoPE's rotations compose, so a key that was rotated at one position can
// be met as if it stood at another. Component first[i] becomes a cos - b sin, second[i] a sin + b cos.
struct Turns {
  std::span<const int> first, second;  // [n_pair]
  std::span<const float> cos, sin;     // [n_turn, n_pair]

  // The turn, or the one back, of one row.
  void apply(int turn, bool back, float* row) const {
    const size_t n_pair = first.size(), at = turn * n_pair;
    for (size_t i = 0; i < n_pair; ++i) {
      const float c = cos[at + i], s = back ? -sin[at + i] : sin[at + i], a = row[first[i]], b = row[second[i]];
      row[first[i]] = a * c - b * s;
      row[second[i]] = a * s + b * c;
    }
  }
  int count() const { return first.empty() ? 0 : static_cast<int>(cos.size() / first.size()); }
};

// A change of one query head's attention, in this order. As it is made it changes nothing.
struct HeadEdit {
  std::span<const float> bias = {};      // [n_key] added to the logits behind soft cap and mask; -inf masks. A query's own key is spared
  const float* learned_sink = nullptr;   // one logit, in place of the model's own learned column
  std::span<const int> calmed = {};      // keys whose weights are multiplied by `calm`; the other keys but key 0 share what they lose
  float calm = 1;                        //   in proportion to what they have (ACT, Yu et al., 2406.15765)
  bool silent = false;                   // the output is 0
};

// out = softmax(soft_cap(scale q k^T) + slope mask, with the learned column as one more) v, or with `sigmoid` sigmoid(...) v
struct Call {
  int layer = -1;
  int first_key = 0;  // the key of query 0's own token
  int n_stream = 1, n_query = 0, n_key = 0;
  int n_head = 0, n_head_kv = 0;  // n_head is a multiple of n_head_kv: GQA, MQA
  int d_key = 0, d_value = 0;
  const float* q = nullptr;  // [n_stream, n_head, n_query, d_key], last contiguous, strides in floats
  size_t q_query_stride = 0, q_head_stride = 0, q_stream_stride = 0;
  Rows k, v;
  // In place of k and v where keys lie in pieces: [n_head_kv] lists of runs, each in order. What no run covers must be masked.
  std::span<const std::span<const Run>> runs;
  Turns turns;
  Mask mask;
  // The learned column, or none. As a sink it has a logit of each head and no value; as a key and a value before the sequence
  // (KV bias) its logit is scale q key, without soft cap and mask.
  const float* learned_sink = nullptr;   // [n_head] logits
  const float* learned_key = nullptr;    // [n_head_kv, d_key]; then learned_value too
  const float* learned_value = nullptr;  // [n_head_kv, d_value]
  bool sigmoid = false;  // each weight is sigmoid(logit), rows have any sum (Ramapuram et al., 2409.04431); then no learned column
  float scale = 1;
  float max_bias = 0;  // ALiBi's steepest slope exponent; 0: no ALiBi, slope 1
  float soft_cap = 0;  // logits become soft_cap tanh(logit / soft_cap); 0: as they are
  std::span<const HeadEdit> edits = {};  // [n_head], or none
  float* out = nullptr;  // [n_stream, n_query, n_head, d_value] contiguous

  const float* query(int stream, int head, int i) const {
    return q + stream * q_stream_stride + head * q_head_stride + i * q_query_stride;
  }
  float* output(int stream, int i, int head) const {
    return out + ((static_cast<size_t>(stream) * n_query + i) * n_head + head) * d_value;
  }
};

// ALiBi's slope of a head (Press et al., 2108.12409, with the rule for head counts that are no power of two).
float alibi_slope(const Call& call, int head);

}  // namespace sinkscope::attention
