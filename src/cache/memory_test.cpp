#include "cache/memory.h"

#include <gtest/gtest.h>

#include "cache/saved.h"
#include "sinkscope/error.h"

namespace sinkscope::cache {
namespace {

constexpr int kKey = 8, kValue = 4;

Memory filled(int n_row, Precision precision = Precision::f32) {
  Memory memory(attention::kernels("auto"), precision);
  Layer& layer = memory.layer(0, 2, kKey, kValue);
  for (int i = 0; i < n_row; ++i) {
    const std::vector<float> key(kKey, static_cast<float>(i) / 4), value(kValue, static_cast<float>(-i));
    for (int h = 0; h < 2; ++h) memory.append(layer, h, i, key.data(), value.data());
  }
  return memory;
}

// What is kept of a head, by reading the rows where they lie.
std::vector<int> rows_of(const Head& head) {
  std::vector<int> rows;
  head.over_runs([&](int first, int n, Block& block, int at) {
    EXPECT_EQ(first, static_cast<int>(rows.size()));
    for (int i = at; i < at + n; ++i) {
      const float key = reinterpret_cast<const float*>(block.key(i))[kKey - 1], value = reinterpret_cast<const float*>(block.value(i))[0];
      EXPECT_EQ(key * 4, static_cast<float>(block.position(i)));
      EXPECT_EQ(-value, static_cast<float>(block.position(i)));
      rows.push_back(block.position(i));
    }
  });
  EXPECT_EQ(static_cast<int>(rows.size()), head.n_row());
  return rows;
}

// The n rows of which `wanted` says so.
std::vector<bool> only(int n, const std::function<bool(int)>& wanted) {
  std::vector<bool> kept(n);
  for (int i = 0; i < n; ++i) kept[i] = wanted(i);
  return kept;
}

TEST(Memory, KeepsWhatItIsTold) {
  Memory memory = filled(100);
  Layer& layer = memory.layers()[0];
  memory.keep(layer, 0, only(100, [](int i) { return i < 4 || i % 7 == 3 || i > 80; }));
  std::vector<int> want;
  for (int i = 0; i < 100; ++i)
    if (i < 4 || i % 7 == 3 || i > 80) want.push_back(i);
  EXPECT_EQ(rows_of(layer.heads[0]), want);
  EXPECT_EQ(layer.heads[0].positions(), std::vector<int32_t>(want.begin(), want.end()));
  EXPECT_EQ(layer.heads[1].n_row(), 100);
  memory.keep(layer, 1, only(100, [](int) { return false; }));
  EXPECT_TRUE(rows_of(layer.heads[1]).empty());
  const std::vector<float> key(kKey, 25), value(kValue, -100);
  memory.append(layer, 1, 100, key.data(), value.data());
  EXPECT_EQ(rows_of(layer.heads[1]), std::vector<int>{100});
}

TEST(Memory, AStreamGivesItsMemoryBack) {
  Memory memory = filled(64);
  Layer& layer = memory.layers()[0];
  size_t most = 0;
  const std::vector<float> key(kKey, 0), value(kValue, 0);
  for (int i = 64; i < 20000; ++i) {
    for (int h = 0; h < 2; ++h) {
      // One head drops its oldest row but four, the other a row somewhere.
      const int dropped = h == 0 ? 4 : (i * 7919) % 64;
      memory.keep(layer, h, only(64, [&](int row) { return row != dropped; }));
      memory.append(layer, h, i, key.data(), value.data());
      EXPECT_EQ(layer.heads[h].n_row(), 64);
    }
    most = std::max(most, memory.bytes());
  }
  // Rows, two blocks of holes, and the last block.
  const size_t block = Block::bytes(layer.shape) + sizeof(Block) + 128;
  EXPECT_LE(most, 2 * (64 / kBlockRows + 2 + 1) * block + 1024);
}

TEST(Memory, ForksShareBlocksUntilOneOfThemWrites) {
  Memory memory = filled(40);
  const size_t alone = memory.bytes();
  Memory fork = memory;
  EXPECT_LT(fork.bytes(), alone + 1024);
  const std::vector<float> key(kKey, 10), value(kValue, -40), other(kKey, 12.5f), other_value(kValue, -50);
  memory.append(memory.layers()[0], 0, 40, key.data(), value.data());
  fork.append(fork.layers()[0], 0, 50, other.data(), other_value.data());
  fork.keep(fork.layers()[0], 0, only(41, [](int i) { return i > 30; }));
  EXPECT_EQ(rows_of(memory.layers()[0].heads[0]).size(), 41u);
  EXPECT_EQ(rows_of(memory.layers()[0].heads[0]).back(), 40);
  EXPECT_EQ(rows_of(fork.layers()[0].heads[0]), (std::vector<int>{31, 32, 33, 34, 35, 36, 37, 38, 39, 50}));
  fork.clear();
  EXPECT_EQ(rows_of(memory.layers()[0].heads[1]).size(), 40u);
}

TEST(Memory, HalvesAreTheNearest) {
  Memory memory(attention::kernels("auto"), Precision::f16);
  Layer& layer = memory.layer(0, 1, 4, 4);
  const float values[] = {1.0f / 3, -2, 65504, 6e-5f};
  memory.append(layer, 0, 0, values, values);
  layer.heads[0].over_runs([&](int, int, Block& block, int) {
    float got[4];
    attention::kernels("auto").decode_rows({.data = block.key(0), .key_stride = 8, .element = attention::Element::f16}, 0, 1, 0, 1, 4, 4, got);
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(got[i], values[i], std::abs(values[i]) / 2048);
  });
}

TEST(Memory, ComesBackFromBytesAsItWas) {
  Memory memory = filled(50);
  Layer& layer = memory.layers()[0];
  memory.keep(layer, 0, only(50, [](int i) { return i % 3 == 0; }));
  layer.heads[1].observations().push_back({.n_query = 7, .mass = std::vector<float>(50, .25f)});
  for (int i = 0; i < 5; ++i) memory.start_batch(), memory.end_batch(1500);
  const std::vector<uint8_t> bytes = to_bytes(memory);
  Memory back(attention::kernels("auto"), Precision::f32);
  from_bytes(bytes, back);
  ASSERT_EQ(back.layers().size(), 1u);
  for (int h = 0; h < 2; ++h) EXPECT_EQ(rows_of(back.layers()[0].heads[h]), rows_of(layer.heads[h]));
  EXPECT_EQ(back.layers()[0].heads[1].observations()[0].mass, layer.heads[1].observations()[0].mass);
  EXPECT_EQ(back.n_past(), 7500);
  EXPECT_EQ(back.base(), memory.base());
  EXPECT_EQ(to_bytes(back), bytes);

  for (size_t n = 0; n < bytes.size(); n += 97) EXPECT_THROW(from_bytes(std::span(bytes).first(n), back), InputError) << n;
  Memory halves(attention::kernels("auto"), Precision::f16);
  EXPECT_THROW(from_bytes(bytes, halves), InputError);
}

TEST(Memory, TheBaseOfPositionsMovesBetweenBatches) {
  Memory memory = filled(1);
  for (int i = 0; i < 100; ++i) {
    memory.start_batch();
    EXPECT_LT(memory.n_past() - memory.base(), 4096);
    memory.end_batch(1000);
  }
  EXPECT_EQ(memory.base_of(0), 0);
  EXPECT_EQ(memory.base_of(4999), 0);
  EXPECT_EQ(memory.base_of(5000), 5000);
  EXPECT_EQ(memory.base_of(99999), 95000);
}

}  // namespace
}  // namespace sinkscope::cache
