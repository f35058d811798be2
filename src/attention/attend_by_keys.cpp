#include <algorithm>

#include "attention/operation.h"

namespace sinkscope::attention {
namespace {

constexpr int kKeysPerChunk = 256;          // what a thread takes at once
constexpr size_t kDecodedBytes = 16 << 10;  // decoded rows of keys or values: they stay in the L1 cache
constexpr double kWorthASecondThread = 1 << 17;  // multiplications and additions

// Three passes over the layer, each shared out over threads: logits, weights, outputs. Chunks of keys depend on the
// shape and the mask alone, and their outputs are added in order: the same bits for any number of threads.
class ByKeys {
 public:
  explicit ByKeys(Operation& operation)
      : op_(operation), call_(op_.call), kernels_(op_.kernels), work_(op_.work), n_row_(op_.group() * call_.n_query),
        n_head_kv_(call_.n_stream * call_.n_head_kv), n_chunk_((call_.n_key + kKeysPerChunk - 1) / kKeysPerChunk),
        d_key_(round_up(call_.d_key, kernels_.panel)), d_value_(round_up(call_.d_value, kernels_.panel)),
        stride_(round_up(call_.n_key, kernels_.panel)) {
    const double work = 2.0 * n_head_kv_ * n_row_ * call_.n_key * (call_.d_key + call_.d_value);
    n_thread_ = work < kWorthASecondThread ? 1 : op_.n_thread;
    const size_t n = static_cast<size_t>(n_head_kv_) * n_row_;
    queries_ = work_.queries.get(n * d_key_);
    weights_ = work_.weights.get(n * stride_);
    entropy_ = work_.row_values.get(2 * n);
    learned_sink_mass_ = entropy_ + n;
    partial_ = work_.partial.get(n * n_chunk_ * d_value_);
  }

  void run() {
    op_.shape.slots_per_head = 1;
    op_.shape.n_slot = call_.n_head;
    for (Probe* probe : op_.probes) probe->begin(op_.shape);
    for (int stream = 0, row = 0; stream < call_.n_stream; ++stream)
      for (int head = 0; head < call_.n_head; ++head, row += call_.n_query)
        op_.scaled_queries(stream, head, 0, call_.n_query, d_key_, queries_ + static_cast<size_t>(row) * d_key_);

    over_chunks([&](const Chunk& c, int thread) { scores(c, thread); });
    for (int stream = 0; stream < call_.n_stream; ++stream) {
      run_tasks(call_.n_head, n_thread_, [&](int head, int) { weights(stream, head); });
      for (Probe* probe : op_.probes) probe->merge(stream, 0, call_.n_head);
    }
    over_chunks([&](const Chunk& c, int thread) { weighted_values(c, thread); });
    run_tasks(n_head_kv_, n_thread_, [&](int head_kv, int) { outputs(head_kv); });
    for (Probe* probe : op_.probes) probe->end();
  }

 private:
  // Keys of one KV head, `index` counting over its chunks.
  struct Chunk {
    int head_kv;  // over all streams
    int index, begin, end;
  };

  // What the queries of a KV head can see together.
  Operation::Keys keys_of(int head_kv) const {
    const int stream = head_kv / call_.n_head_kv, first_head = head_kv % call_.n_head_kv * op_.group();
    const int n_head = call_.mask.data && call_.mask.n_head > 1 ? op_.group() : 1;
    Operation::Keys all = op_.visible(stream, first_head, 0, call_.n_query, kernels_.panel);
    for (int h = 1; h < n_head; ++h) {
      const Operation::Keys keys = op_.visible(stream, first_head + h, 0, call_.n_query, kernels_.panel);
      if (keys.begin >= keys.end) continue;
      all = all.begin >= all.end ? keys : Operation::Keys{std::min(all.begin, keys.begin), std::max(all.end, keys.end)};
    }
    return all;
  }

  template <class Body>
  void over_chunks(const Body& body) {
    run_tasks(n_head_kv_ * n_chunk_, n_thread_, [&](int task, int thread) {
      const Operation::Keys keys = keys_of(task / n_chunk_);
      const int index = task % n_chunk_, begin = keys.begin + index * kKeysPerChunk;
      if (begin < keys.end) body({task / n_chunk_, index, begin, std::min(begin + kKeysPerChunk, keys.end)}, thread);
    });
  }

  // Decodes a chunk's rows some at a time: body(first key, number, [number, d_stride] floats).
  template <class Body>
  void over_rows(const Chunk& c, const Rows& rows, int d, int d_stride, int thread, const Body& body) {
    const int most = std::max(4, static_cast<int>(kDecodedBytes / sizeof(float)) / d_stride / 4 * 4);
    float* decoded = work_.of_thread[thread].get(static_cast<size_t>(most) * d_stride);
    for (int k = c.begin; k < c.end; k += most) {
      const int n = std::min(most, c.end - k);
      kernels_.decode_rows(rows, c.head_kv / call_.n_head_kv, c.head_kv % call_.n_head_kv, k, n, d, d_stride, decoded);
      body(k, n, decoded);
    }
  }

  float* weights_of(int head_kv) const { return weights_ + static_cast<size_t>(head_kv) * n_row_ * stride_; }

  void scores(const Chunk& c, int thread) {
    const float* queries = queries_ + static_cast<size_t>(c.head_kv) * n_row_ * d_key_;
    const int begin = keys_of(c.head_kv).begin;
    over_rows(c, call_.k, call_.d_key, d_key_, thread, [&](int k, int n, const float* keys) {
      kernels_.key_scores(queries, n_row_, d_key_, keys, n, weights_of(c.head_kv) + (k - begin), stride_);
    });
  }

  void weights(int stream, int head) {
    const int head_kv = stream * call_.n_head_kv + head / op_.group();
    const size_t row = (static_cast<size_t>(stream) * call_.n_head + head) * call_.n_query;
    const Operation::Keys keys = keys_of(head_kv);
    float* weights = weights_ + row * stride_;
    const Tile tile{.stream = stream, .head = head, .slot = head, .first_query = 0, .n_row = call_.n_query,
                    .key_begin = keys.begin, .key_end = keys.end, .weights = weights,
                    .stride = static_cast<size_t>(stride_), .entropy = entropy_ + row,
                    .learned_sink_mass = learned_sink_mass_ + row};
    op_.softmax_rows(tile, weights, entropy_ + row, learned_sink_mass_ + row);
    for (Probe* probe : op_.probes) probe->see(tile);
  }

  float* partial_of(int head_kv, int chunk) const {
    return partial_ + (static_cast<size_t>(head_kv) * n_chunk_ + chunk) * n_row_ * d_value_;
  }

  void weighted_values(const Chunk& c, int thread) {
    float* out = partial_of(c.head_kv, c.index);
    std::fill_n(out, static_cast<size_t>(n_row_) * d_value_, 0.0f);
    const int begin = keys_of(c.head_kv).begin;
    over_rows(c, call_.v, call_.d_value, d_value_, thread, [&](int k, int n, const float* values) {
      kernels_.add_values(weights_of(c.head_kv) + (k - begin), stride_, n_row_, values, n, d_value_, out);
    });
  }

  void outputs(int head_kv) {
    const Operation::Keys keys = keys_of(head_kv);
    const int n_chunk = (keys.end - keys.begin + kKeysPerChunk - 1) / kKeysPerChunk;
    for (int r = 0; r < n_row_; ++r) {
      const int head = head_kv % call_.n_head_kv * op_.group() + r / call_.n_query;
      float* out = call_.output(head_kv / call_.n_head_kv, r % call_.n_query, head);
      std::fill_n(out, call_.d_value, 0.0f);
      for (int c = 0; c < n_chunk; ++c) {
        const float* from = partial_of(head_kv, c) + static_cast<size_t>(r) * d_value_;
        for (int d = 0; d < call_.d_value; ++d) out[d] += from[d];
      }
    }
  }

  Operation& op_;
  const Call& call_;
  const Kernels& kernels_;
  Workspace& work_;
  const int n_row_;      // queries that share a KV head: its query heads, times n_query
  const int n_head_kv_;  // over all streams
  const int n_chunk_, d_key_, d_value_, stride_;
  int n_thread_;
  float *queries_;               // [n_head_kv, n_row, d_key], scaled
  float *weights_;               // [n_head_kv, n_row, stride], column 0 is the first key that is visible
  float *entropy_, *learned_sink_mass_;  // [n_head_kv, n_row]
  float *partial_;               // [n_head_kv, n_chunk, n_row, d_value]
};

}  // namespace

void attend_by_keys(Operation& operation) { ByKeys(operation).run(); }

}  // namespace sinkscope::attention
