#include <algorithm>

#include "attention/operation.h"

namespace sinkscope::attention {
namespace {

constexpr int kKeysPerChunk = 256;          // what a thread takes at once
constexpr size_t kRunBytes = 8 << 10;       // rows of all KV heads that are read together; the next ones are on their way
constexpr size_t kDecodedBytes = 16 << 10;  // decoded rows: they stay near
constexpr int kRowsToDecodeFor = 8;         // from more queries on rows are decoded once and kept
constexpr double kWorthASecondThread = 1 << 17;  // multiplications and additions

// Three passes over the layer, each shared out over threads: logits, weights, outputs. Chunks of keys depend on the
// shape and the mask alone, and their outputs are added in order: the same bits for any number of threads.
class ByKeys {
 public:
  explicit ByKeys(Operation& operation)
      : op_(operation), call_(op_.call), kernels_(op_.kernels), work_(op_.work), n_row_(op_.group() * call_.n_query),
        n_chunk_((call_.n_key + kKeysPerChunk - 1) / kKeysPerChunk),
        d_key_(round_up(call_.d_key, kRowUnit)), d_value_(round_up(call_.d_value, kRowUnit)),
        stride_(round_up(call_.n_key, kernels_.panel)) {
    const size_t n = static_cast<size_t>(call_.n_stream) * call_.n_head * call_.n_query;
    const double work = 2.0 * static_cast<double>(n) * call_.n_key * (call_.d_key + call_.d_value);
    n_thread_ = work < kWorthASecondThread ? 1 : op_.n_thread;
    n_query_ = n * d_key_;
    queries_ = work_.queries.get((1 + call_.turns.count()) * n_query_);
    weights_ = work_.weights.get(n * stride_);
    float* values = work_.row_values.get(RowValues::kCount * n);
    of_rows_ = {values, values + n, values + 2 * n, values + 3 * n};
    partial_ = work_.partial.get(n * n_chunk_ * d_value_);
  }

  void run() {
    op_.shape.slots_per_head = 1;
    op_.shape.n_slot = call_.n_head;
    for (Probe* probe : op_.probes) probe->begin(op_.shape);
    for (int stream = 0, row = 0; stream < call_.n_stream; ++stream)
      for (int head = 0; head < call_.n_head; ++head, row += call_.n_query)
        op_.scaled_queries(stream, head, 0, call_.n_query, d_key_, queries_ + static_cast<size_t>(row) * d_key_);
    for (int turn = 0; turn < call_.turns.count(); ++turn) {
      float* turned = std::copy_n(queries_, n_query_, queries_ + (1 + turn) * n_query_) - n_query_;
      for (size_t at = 0; at < n_query_; at += d_key_) call_.turns.apply(turn, /*back=*/false, turned + at);
    }

    over_chunks([&](const Chunk& c, int thread) { scores(c, thread); });
    for (int stream = 0; stream < call_.n_stream; ++stream) {
      run_tasks(call_.n_head, n_thread_, [&](int head, int) { weights(stream, head); });
      for (Probe* probe : op_.probes) probe->merge(stream, 0, call_.n_head);
    }
    over_chunks([&](const Chunk& c, int thread) { weighted_values(c, thread); });
    run_tasks(call_.n_stream * call_.n_head_kv, n_thread_,
              [&](int task, int) { outputs(task / call_.n_head_kv, task % call_.n_head_kv); });
    for (Probe* probe : op_.probes) probe->end();
  }

 private:
  // What the queries of a stream can see together.
  Operation::Keys keys_of(int stream) const {
    Operation::Keys all = op_.visible(stream, 0, 0, call_.n_query, kernels_.panel);
    for (int h = 1; h < op_.shape.n_plane_head; ++h) {
      const Operation::Keys keys = op_.visible(stream, h, 0, call_.n_query, kernels_.panel);
      if (keys.begin < keys.end)
        all = all.begin >= all.end ? keys : Operation::Keys{std::min(all.begin, keys.begin), std::max(all.end, keys.end)};
    }
    return all;
  }

  // Keys of all KV heads of a stream: in llama.cpp's cache they lie side by side, and are read in one run.
  struct Chunk {
    int stream, index, begin, end;
  };

  template <class Body>
  void over_chunks(const Body& body) {
    run_tasks(call_.n_stream * n_chunk_, n_thread_, [&](int task, int thread) {
      const int stream = task / n_chunk_, index = task % n_chunk_;
      const Operation::Keys keys = keys_of(stream);
      const int begin = keys.begin + index * kKeysPerChunk;
      if (begin < keys.end) body({stream, index, begin, std::min(begin + kKeysPerChunk, keys.end)}, thread);
    });
  }

  // Rows of one KV head that lie one after the other, as the kernels are given them.
  struct Piece {
    const Rows& rows;
    int stream, head, first;    // in rows
    int n, key, head_kv, turn;  // as keys of the operation
  };

  // A chunk's rows of all KV heads, some at a time.
  template <class Body>
  void over_rows(const Chunk& c, Rows Run::*which, int d, int d_stride, int thread, const Body& body) {
    if (call_.runs.empty())
      return over_pieces(which == &Run::k ? call_.k : call_.v, {c.begin, c.end, c.stream, call_.n_head_kv, 0, 0, -1}, d, d_stride, thread, body);
    for (int h = 0; h < call_.n_head_kv; ++h)
      op_.over_runs(h, c.begin, c.end, [&](const Run& run, int begin, int end) {
        over_pieces(run.*which, {begin, end, 0, 1, h, run.begin, run.turn}, d, d_stride, thread, body);
      });
  }

  // Rows of some KV heads that lie side by side.
  struct Part {
    int begin, end;                    // keys
    int stream, n_head, first_head_kv;
    int origin;                        // the key of row 0
    int turn;
  };

  // The rows are used where they lie if the kernels can read them; what many queries share, or no kernel reads, is decoded once.
  template <class Body>
  void over_pieces(const Rows& rows, const Part& p, int d, int d_stride, int thread, const Body& body) {
    const bool decode = rows.element == Element::coded || d != d_stride || n_row_ > kRowsToDecodeFor;
    const size_t bytes = decode ? p.n_head * d_stride * sizeof(float) : rows.key_stride;
    const int most = std::max(4, static_cast<int>((decode ? kDecodedBytes : kRunBytes) / bytes) / 4 * 4);
    for (int key = p.begin; key < p.end; key += most) {
      const int n = std::min(most, p.end - key), first = key - p.origin;
      Rows floats;
      if (decode) {
        float* decoded = work_.of_thread[thread].get(static_cast<size_t>(p.n_head) * most * d_stride);
        kernels_.decode_rows(rows, p.stream, p.n_head, first, n, d, d_stride, decoded);
        floats = {.data = reinterpret_cast<const std::byte*>(decoded), .key_stride = d_stride * sizeof(float),
                  .head_stride = n * d_stride * sizeof(float), .stream_stride = 0, .element = Element::f32};
      }
      for (int h = 0; h < p.n_head; ++h)
        body(Piece{decode ? floats : rows, decode ? 0 : p.stream, h, decode ? 0 : first, n, key, p.first_head_kv + h, p.turn});
    }
  }

  // The first row of the queries that share a KV head.
  size_t row_of(int stream, int head_kv) const {
    return (static_cast<size_t>(stream) * call_.n_head_kv + head_kv) * n_row_;
  }

  void scores(const Chunk& c, int thread) {
    const int begin = keys_of(c.stream).begin;
    for (int r = 0; r < call_.n_head * call_.n_query && !call_.runs.empty(); ++r)  // keys that nobody has are masked numbers
      std::fill_n(weights_ + static_cast<size_t>(r) * stride_ + (c.begin - begin), c.end - c.begin, 0.0f);
    over_rows(c, &Run::k, call_.d_key, d_key_, thread, [&](const Piece& p) {
      const size_t row = row_of(c.stream, p.head_kv);
      const float* queries = queries_ + (p.turn + 1) * n_query_ + row * d_key_;
      float* logits = weights_ + row * stride_ + (p.key - begin);
      float* apart = nullptr;
      if (p.rows.channels) {
        float* folded = work_.of_thread[thread].get(static_cast<size_t>(n_row_) * (d_key_ + 1));
        apart = folded + static_cast<size_t>(n_row_) * d_key_;
        kernels_.fold_channels(p.rows, d_key_, queries, n_row_, folded, apart);
        queries = folded;
      }
      kernels_.key_scores(p.rows, p.stream, p.head, p.first, p.n, d_key_, queries, n_row_, logits, stride_);
      for (int r = 0; apart && r < n_row_; ++r)
        for (int k = 0; k < p.n; ++k) logits[static_cast<size_t>(r) * stride_ + k] += apart[r];
    });
  }

  void weights(int stream, int head) {
    const size_t row = (static_cast<size_t>(stream) * call_.n_head + head) * call_.n_query;
    const Operation::Keys keys = keys_of(stream);
    float* weights = weights_ + row * stride_;
    const RowValues of_rows = of_rows_.at(row);
    const Tile tile{.stream = stream, .head = head, .slot = head, .first_query = 0, .n_row = call_.n_query,
                    .key_begin = keys.begin, .key_end = keys.end, .weights = weights,
                    .stride = static_cast<size_t>(stride_), .entropy = of_rows.entropy,
                    .largest_weight = of_rows.largest_weight,
                    .learned_sink_mass = of_rows.learned_sink_mass, .log_sum = of_rows.log_sum};
    op_.weigh_rows(tile, weights, of_rows);
    for (Probe* probe : op_.probes) probe->see(tile);
  }

  float* partial_of(int stream, int chunk, int head_kv) const {
    const size_t n_row_of_stream = static_cast<size_t>(call_.n_head) * call_.n_query;
    return partial_ + ((static_cast<size_t>(stream) * n_chunk_ + chunk) * n_row_of_stream + head_kv * n_row_) * d_value_;
  }

  void weighted_values(const Chunk& c, int thread) {
    std::fill_n(partial_of(c.stream, c.index, 0), static_cast<size_t>(call_.n_head) * call_.n_query * d_value_, 0.0f);
    const int begin = keys_of(c.stream).begin;
    over_rows(c, &Run::v, call_.d_value, d_value_, thread, [&](const Piece& p) {
      kernels_.add_values(p.rows, p.stream, p.head, p.first, p.n, d_value_, weights_ + row_of(c.stream, p.head_kv) * stride_ + (p.key - begin),
                          stride_, n_row_, partial_of(c.stream, c.index, p.head_kv));
    });
  }

  void outputs(int stream, int head_kv) {
    const Operation::Keys keys = keys_of(stream);
    const int n_chunk = (keys.end - keys.begin + kKeysPerChunk - 1) / kKeysPerChunk;
    for (int r = 0; r < n_row_; ++r) {
      const int head = head_kv * op_.group() + r / call_.n_query;
      float* out = call_.output(stream, r % call_.n_query, head);
      std::fill_n(out, call_.d_value, 0.0f);
      for (int c = 0; c < n_chunk; ++c) {
        const float* from = partial_of(stream, c, head_kv) + static_cast<size_t>(r) * d_value_;
        for (int d = 0; d < call_.d_value; ++d) out[d] += from[d];
      }
      op_.add_learned_value(head, of_rows_.learned_sink_mass[row_of(stream, head_kv) + r], out);
    }
  }

  Operation& op_;
  const Call& call_;
  const Kernels& kernels_;
  Workspace& work_;
  const int n_row_;      // queries that share a KV head: its query heads, times n_query
  const int n_chunk_, d_key_, d_value_, stride_;
  int n_thread_;
  // Rows: [n_stream, n_head, n_query].
  size_t n_query_;                        // floats of them
  float* queries_;                        // [1 + n_turn][row, d_key], scaled: as they are, then turned
  float* weights_;                        // [row, stride], column 0 is the first key that is visible
  RowValues of_rows_;
  float* partial_;                        // [n_stream, n_chunk, n_head, n_query, d_value]
};

}  // namespace

void attend_by_keys(Operation& operation) { ByKeys(operation).run(); }

}  // namespace sinkscope::attention
