// The products and passes of attention, once for each instruction set (Highway).
//
// Keys and values are decoded into panels of `panel` columns, so that a register block reads one contiguous run:
//   keys   [n_panel][d_key][panel]     a panel is `panel` keys
//   values [n_panel][n_key][panel]     a panel is `panel` components
// A tile's rows come in register blocks of `row_block` queries.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "attention/call.h"
#include "sinkscope/probe.h"

namespace sinkscope::attention {

// What turns one row of logits into weights.
struct RowTask {
  RowView view;                   // in keys
  const uint16_t* mask;           // f16 of key 0 of this row; null where the view is plain
  float slope;
  float soft_cap;
  const float* learned_sink;      // one logit, or null
  const float* bias = nullptr;    // of key 0, added last; or null
};

// What is left of a row beside its weights: one float each, or arrays by row.
struct RowValues {
  float* entropy;            // nats, over the keys and the learned column; of shares where weights do not sum to 1
  float* largest_weight;     // of a key
  float* learned_sink_mass;  // of the learned column
  float* log_sum;            // ln of the sum of e^logit over the keys and the learned column

  static constexpr int kCount = 4;
  RowValues at(size_t row) const { return {entropy + row, largest_weight + row, learned_sink_mass + row, log_sum + row}; }
};

constexpr int kRowUnit = 32;  // components that the kernels of few queries take at once

struct Kernels {
  const char* name;               // as in --isa and in reports
  int panel, row_block;

  // Decode n rows from `first` on into the panels, as the keys from `key` on. `scratch` holds one row.
  void (*pack_keys)(const Rows& rows, int stream, int head_kv, int first, int n, int key, int d, float* panels, float* scratch);
  void (*pack_values)(const Rows& rows, int stream, int head_kv, int first, int n, int key, int d, int n_key, float* panels,
                      float* scratch);
  // logits[r][k] = q[r] . key[k] for n_row rows (q: [n_row, d] contiguous) and the panels [first_panel, last_panel).
  void (*scores)(const float* q, int n_row, int d, const float* key_panels, int first_panel, int last_panel,
                 float* logits, size_t stride);
  // Logits of the keys [begin, end) become weights in place.
  void (*softmax_row)(float* row, int begin, int end, const RowTask& task, const RowValues& values);
  // The same, each weight for itself: sigmoid(logit). The learned sink takes no part.
  void (*sigmoid_row)(float* row, int begin, int end, const RowTask& task, const RowValues& values);
  // out[r] = sum over keys of weights[r][k] value[k]; out: [n_row, d] contiguous, d rounded up to `panel`.
  void (*weighted_values)(const float* weights, size_t stride, int n_row, int begin, int end, int n_key,
                          const float* value_panels, int d, float* out);
  // Where a mask row starts and ends to let keys through, and whether nothing but 0 lies between.
  RowView (*view_of)(const uint16_t* mask_row, int n_key);

  // For few queries, on keys and values as they lie; d is a multiple of kRowUnit, elements are not coded.
  // logits[r][k] = q[r] . key[first + k] for n keys; q: [n_row, d]. Of q8_channel and q4_channel the bare codes.
  void (*key_scores)(const Rows& rows, int stream, int head_kv, int first, int n, int d, const float* q, int n_row,
                     float* logits, size_t stride);
  // out[r] += sum over n keys of weights[r][k] value[first + k]; out: [n_row, d].
  void (*add_values)(const Rows& rows, int stream, int head_kv, int first, int n, int d, const float* weights, size_t stride,
                     int n_row, float* out);
  // Queries that meet bare codes: folded[r][c] = step[c] q[r][c], and what each logit lacks then, apart[r] = folded[r] . unit zero.
  void (*fold_channels)(const Rows& rows, int d, const float* q, int n_row, float* folded, float* apart);
  // For other rows: decode [first, first + n) of all KV heads to floats [n_head_kv, n, d_stride], zeros behind d.
  void (*decode_rows)(const Rows& rows, int stream, int n_head_kv, int first, int n, int d, int d_stride, float* to);

  // Rounded to f16.
  void (*to_halves)(const float* from, int n, uint16_t* to);

  // to[i] = e^x[i] for x <= 0, as softmax_row computes it: at most 2 ulp off down to -87, 0 below.
  void (*exponentials)(const float* x, int n, float* to);

  // For probes. sum[k] += w, largest[k] = max(largest[k], w) over the tile's rows, k from key 0.
  void (*add_columns)(const Tile& tile, float* sum, float* largest);
  // The first key with the largest weight of a row, relative to its begin; -1 when that is 0: the row sees nothing.
  int (*strongest)(const float* row, int n, float largest_weight);
  float (*sum)(const float* values, int n);
};

// The instruction sets that were compiled and that this processor has, the best first.
std::span<const Kernels* const> available_kernels();

// "auto" is the best one. Throws UsageError when the name is unknown or this processor lacks it.
const Kernels& kernels(const std::string& isa);

}  // namespace sinkscope::attention
