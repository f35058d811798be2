// The accumulators of one prompt: what is left of each layer's attention when the tiles are gone.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "attention/kernels.h"
#include "attention/columns.h"
#include "sinkscope/probe.h"

namespace sinkscope::measure {

inline constexpr int kFirstKeys[] = {1, 4, 8};  // a row's mass on so many first keys is kept
inline constexpr int kNumFirst = 3;
inline constexpr int kLastRows = 64;  // first-n shares look at the last rows of a prompt

// Positions in n bands of one length, or nearly so: position p of n_position is in band floor(p n / n_position).
struct Bands {
  int n = 0;           // 0: none
  int n_position = 0;  // at least n

  int of(int position) const { return static_cast<int>(int64_t{position} * n / n_position); }
  int begin(int band) const { return static_cast<int>((int64_t{band} * n_position + n - 1) / n); }
};

// Arrays are [n_head, n_token], last fastest; n_token is the recorder's.
struct LayerRecord {
  int n_head = 0;                      // 0: nothing of this layer was seen
  int n_row = 0;                       // rows seen so far
  bool learned_sink = false;
  std::vector<float> column_sum;       // attention that a key received
  std::vector<float> column_max;
  std::vector<uint32_t> column_n_row;  // [n_mask, n_token] rows that could see the key; n_mask is 1 or n_head
  std::vector<float> entropy;          // of a row, in nats
  std::vector<int32_t> strongest;      // key of a row, -1: it sees none
  int first_mass_row = 0;              // the rows before have no first_mass
  std::vector<float> first_mass;       // [n_head, n_token - first_mass_row, 3] of a row on the first 1, 4 and 8 keys
  std::vector<float> learned_sink_mass;  // of a row; only with learned sinks
  std::vector<RowView> rows;           // [n_token] keys that a row can see, by the first head's mask
  std::vector<float> band_sum;         // [n_head, n_band, n_band] attention that the queries of a band give the keys of another; only with Keep::bands

  uint32_t key_n_row(int head, int key, int n_token) const {
    const bool shared = static_cast<int>(column_n_row.size()) == n_token;
    return column_n_row[static_cast<size_t>(shared ? 0 : head) * n_token + key];
  }
  // Mean attention to a key, over the rows that could see it.
  float alpha(int head, int key, int n_token) const;
  // Keys that at least min_rows rows see and whose mean attention is above epsilon.
  std::vector<int> sinks(int head, int n_token, float epsilon, int min_rows) const;
  // The 3 masses of one row.
  size_t first_mass_at(int head, int row, int n_token) const {
    return (static_cast<size_t>(head) * (n_token - first_mass_row) + row - first_mass_row) * kNumFirst;
  }
  // Adds the pairs of a query and a key that it can see to n_pair [n_band, n_band], by the bands of both.
  void add_band_pairs(const Bands& bands, std::span<double> n_pair) const;
};

// What a Recorder keeps beyond the metrics' need.
struct Keep {
  std::vector<std::pair<int, int>> maps = {};  // layers and heads: whole maps, as [row, key] of n_token each
  bool all_first_mass = true;                  // false: of the last kLastRows rows only, 12 of 28 bytes less
  Bands bands = {};                            // banded sums of each head; prompts are no longer than their positions
};

// For one sequence: cells of the cache are positions, and a layer's next rows follow the last ones. Streams can then be
// nothing but groups of heads, and are joined: head = stream * n_head + head.
class Recorder : public Probe {
 public:
  explicit Recorder(const attention::Kernels& kernels, Keep keep = {});

  // Forgets, and makes room for n_token positions.
  void start(int n_token);
  int n_token() const { return n_token_; }
  const Bands& bands() const { return keep_.bands; }
  // By layer; layers that had no attention are empty.
  std::span<const LayerRecord> layers() const { return layers_; }
  // Of a layer and head of Keep::maps: [n_token, n_token].
  std::span<const float> map(std::pair<int, int> layer_head) const { return maps_.at(layer_head); }

  void begin(const AttentionShape& shape) override;
  void see(const Tile& tile) override;
  void merge(int stream, int first_head, int n_head) override;
  void end() override;

 private:
  bool one_slot() const { return shape_->slots_per_head == 1; }
  void add_columns(Tile tile, LayerRecord& layer) const;
  void see_row(const Tile& tile, int r, LayerRecord& layer);
  void add_bands(const Tile& tile, const LayerRecord& layer);
  void take_bands(int head_of_group, float* sums);

  const attention::Kernels& kernels_;
  Keep keep_;
  int n_token_ = 0;
  std::vector<LayerRecord> layers_;
  std::map<std::pair<int, int>, std::vector<float>> maps_;
  const AttentionShape* shape_ = nullptr;
  attention::ColumnSlots columns_;
  std::vector<int> band_begin_;    // [n_band + 1]
  std::vector<float> band_slots_;  // [n_slot, n_band, n_band]
};

}  // namespace sinkscope::measure
