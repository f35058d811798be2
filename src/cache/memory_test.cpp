#include "cache/memory.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include <malloc.h>

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
    for (int h = 0; h < 2; ++h) layer.heads[h].append(i, key.data(), value.data());
  }
  return memory;
}

// What is kept of a head, by reading the rows where they lie.
std::vector<int> rows_of(const Head& head) {
  std::vector<int> rows;
  head.over_runs([&](int first, int n, const Block& block, int at) {
    EXPECT_EQ(first, static_cast<int>(rows.size()));
    for (int i = at; i < at + n; ++i) {
      const float key = reinterpret_cast<const float*>(block.keys(i).data)[kKey - 1], value = reinterpret_cast<const float*>(block.values(i).data)[0];
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
  layer.heads[0].keep(only(100, [](int i) { return i < 4 || i % 7 == 3 || i > 80; }));
  std::vector<int> want;
  for (int i = 0; i < 100; ++i)
    if (i < 4 || i % 7 == 3 || i > 80) want.push_back(i);
  EXPECT_EQ(rows_of(layer.heads[0]), want);
  EXPECT_EQ(layer.heads[0].positions(), std::vector<int32_t>(want.begin(), want.end()));
  EXPECT_EQ(layer.heads[1].n_row(), 100);
  layer.heads[1].keep(only(100, [](int) { return false; }));
  EXPECT_TRUE(rows_of(layer.heads[1]).empty());
  const std::vector<float> key(kKey, 25), value(kValue, -100);
  layer.heads[1].append(100, key.data(), value.data());
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
      layer.heads[h].keep(only(64, [&](int row) { return row != dropped; }));
      layer.heads[h].append(i, key.data(), value.data());
      EXPECT_EQ(layer.heads[h].n_row(), 64);
    }
    most = std::max(most, memory.bytes());
  }
  // Rows, two blocks of holes, and the last block.
  const size_t block = sizeof(Block) + Block::data_bytes(*layer.storage, true, kBlockRows) + 2 * sizeof(Head::Part);
  EXPECT_LE(most, 2 * (64 / kBlockRows + 2 + 1) * block + 1024);
}

TEST(Slabs, PiecesLieApartAndAreUsedAgain) {
  Slabs slabs;
  std::mt19937 random(1);
  std::map<std::byte*, size_t> taken;
  constexpr size_t kSizes[] = {40, 226, 1216, 4128, 20000};
  size_t most = 0, live = 0;
  for (int i = 0; i < 20000; ++i) {
    if (taken.size() < 300 && (taken.empty() || random() % 2)) {
      const size_t n = kSizes[random() % std::size(kSizes)];
      std::byte* piece = slabs.take(n);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(piece) % 32, 0u);
      const auto [at, is_new] = taken.emplace(piece, n);
      EXPECT_TRUE(is_new);
      EXPECT_TRUE(at == taken.begin() || piece >= std::prev(at)->first + std::prev(at)->second);
      EXPECT_TRUE(std::next(at) == taken.end() || piece + n <= std::next(at)->first);
      std::fill_n(piece, n, std::byte{0xA5});
      live += n;
    } else {
      const auto at = std::next(taken.begin(), static_cast<ptrdiff_t>(random() % taken.size()));
      EXPECT_EQ(std::count(at->first, at->first + at->second, std::byte{0xA5}), static_cast<ptrdiff_t>(at->second));
      slabs.give_back(at->first, at->second);
      live -= at->second;
      taken.erase(at);
    }
    EXPECT_GE(slabs.bytes(), live + slabs.free_bytes());
    most = std::max(most, slabs.bytes());
  }
  EXPECT_LT(most, 300 * 20000u);
  for (const auto& [piece, n] : taken) slabs.give_back(piece, n);
  EXPECT_EQ(slabs.bytes(), 0u);
}

TEST(Memory, WhatManyHolesLeaveIsMovedTogether) {
  Memory memory = filled(3000, Precision::f32);
  const size_t whole = memory.bytes();
  std::mt19937 random(1);
  // Blocks go here and there, whole, until one in ten is left: the holes are in slabs alone.
  std::vector<bool> stays(3000 / kBlockRows + 1);
  for (size_t i = 0; i < stays.size(); ++i) stays[i] = random() % 10 == 0;
  for (Head& head : memory.layers()[0].heads) head.keep(only(3000, [&](int i) { return stays[i / kBlockRows]; }));
  const std::vector<int> kept = rows_of(memory.layers()[0].heads[1]);
  const size_t sparse = memory.bytes();
  memory.end_batch(1);
  EXPECT_LT(memory.bytes(), sparse / 2);
  EXPECT_LT(memory.bytes(), whole / 5);
  EXPECT_EQ(rows_of(memory.layers()[0].heads[0]), kept);
  EXPECT_EQ(rows_of(memory.layers()[0].heads[1]), kept);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they have a heap of their own
TEST(Memory, BytesAreThoseOfTheHeap) {
  for (const Precision precision : {Precision::f16, Precision::q4c}) {
    const size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    Memory memory(attention::kernels("auto"), precision);
    Layer& layer = memory.layer(0, 4, 64, 64);
    const std::vector<float> row(64, 1);
    for (int i = 0; i < 4000; ++i)
      for (Head& head : layer.heads) head.append(i, row.data(), row.data());
    for (Head& head : layer.heads) head.keep(only(4000, [](int i) { return i % 5 < 2; }));
    memory.end_batch(4000);
    const auto taken = static_cast<double>(mallinfo2().uordblks + mallinfo2().hblkhd - before);
    EXPECT_NEAR(static_cast<double>(memory.bytes()) / taken, 1, .03);  // the heap takes a little for itself
  }
}
#endif

TEST(Memory, ForksShareBlocksUntilOneOfThemWrites) {
  Memory memory = filled(40);
  const size_t alone = memory.bytes();
  Memory fork = memory;
  EXPECT_LT(fork.bytes(), alone + 1024);
  const std::vector<float> key(kKey, 10), value(kValue, -40), other(kKey, 12.5f), other_value(kValue, -50);
  memory.layers()[0].heads[0].append(40, key.data(), value.data());
  fork.layers()[0].heads[0].append(50, other.data(), other_value.data());
  fork.layers()[0].heads[0].keep(only(41, [](int i) { return i > 30; }));
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
  layer.heads[0].append(0, values, values);
  layer.heads[0].over_runs([&](int, int, const Block& block, int) {
    float got[4];
    attention::kernels("auto").decode_rows(block.keys(), 0, 1, 0, 1, 4, 4, got);
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(got[i], values[i], std::abs(values[i]) / 2048);
  });
}

TEST(Memory, ComesBackFromBytesAsItWas) {
  Memory memory = filled(50);
  Layer& layer = memory.layers()[0];
  layer.heads[0].keep(only(50, [](int i) { return i % 3 == 0; }));
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

// Rows of 64 numbers whose channels differ as those of real keys: some wide, one far from 0.
struct Rows {
  static constexpr int kDim = 64;
  std::mt19937 random{5};
  std::normal_distribution<float> normal;
  std::vector<float> next() {
    std::vector<float> row(kDim);
    for (int c = 0; c < kDim; ++c) row[c] = normal(random) * std::exp2(static_cast<float>(c % 7) - 3) + (c == 11 ? 150.0f : 0);
    return row;
  }
};

// Kept keys by position, as floats.
std::map<int, std::vector<float>> keys_of(const Head& head) {
  const std::vector<int32_t> positions = head.positions();
  const std::vector<float> keys = head.keys();
  std::map<int, std::vector<float>> by_position;
  for (size_t i = 0; i < positions.size(); ++i) by_position[positions[i]].assign(keys.begin() + i * Rows::kDim, keys.begin() + (i + 1) * Rows::kDim);
  return by_position;
}

TEST(Coded, NumbersAreOnTheGridOfTheirChannelOrGroup) {
  for (const auto& [element, n_code] : {std::pair{attention::Element::q4_channel, 16}, {attention::Element::q8_channel, 256}, {attention::Element::q4_row, 16}, {attention::Element::q8_row, 256}}) {
    constexpr int kRows = 16, kDim = Rows::kDim;
    Rows rows;
    std::vector<float> from, got(kRows * kDim);
    for (int i = 0; i < kRows; ++i)
      for (const float x : rows.next()) from.push_back(x);
    std::vector<std::byte> to(kRows * row_bytes(element, kDim));
    std::vector<attention::Grid> channels(kDim);
    const attention::Kernels& kernels = attention::kernels("auto");
    encode(kernels, element, from.data(), kRows, kDim, to.data(), channels.data());
    kernels.decode_rows({.data = to.data(), .key_stride = row_bytes(element, kDim), .element = element, .channels = has_channels(element) ? channels.data() : nullptr},
                        0, 1, 0, kRows, kDim, kDim, got.data());
    for (int i = 0; i < kRows; ++i)
      for (int c = 0; c < kDim; ++c) {
        float low = INFINITY, high = -INFINITY;
        for (int other = 0; other < (has_channels(element) ? kRows : kDim); ++other) {
          const float x = has_channels(element) ? from[other * kDim + c] : from[i * kDim + other];
          low = std::min(low, x), high = std::max(high, x);
        }
        const int unit = n_code == 16 ? 1 : 16;
        // A step is at most an eighth more than what reaches over the range and from 0.
        const float step = 1.125f * std::max((high - low) / static_cast<float>(n_code - unit), std::max(-low, high) / static_cast<float>(127 * unit));
        ASSERT_NEAR(got[i * kDim + c], from[i * kDim + c], step / 2 * 1.001f) << i << ' ' << c;
      }
  }
}

TEST(Coded, NewestAndExactRowsStayHalvesAndNothingIsRoundedTwice) {
  for (const Precision precision : {Precision::q4c, Precision::q8c, Precision::q4_0, Precision::q8_0}) {
    const std::vector<int32_t> exact = {0, 1, 40, 41, 500};
    Memory memory(attention::kernels("auto"), precision, exact), halves(attention::kernels("auto"));
    Head& head = memory.layer(0, 1, Rows::kDim, Rows::kDim).heads[0];
    Head& as_halves = halves.layer(0, 1, Rows::kDim, Rows::kDim).heads[0];
    Rows rows;
    std::map<int, std::vector<float>> settled;
    std::mt19937 random(2);
    size_t most = 0;
    for (int position = 0; position < 3000; ++position) {
      std::vector<bool> kept(head.n_row(), true);
      const std::vector<int32_t> positions = head.positions();
      if (head.n_row() >= 200) {
        size_t dropped = random() % kept.size();
        while (std::ranges::binary_search(exact, positions[dropped])) dropped = random() % kept.size();
        kept[dropped] = false;
      }
      head.keep(kept);
      as_halves.keep(kept);
      const std::vector<float> row = rows.next();
      head.append(position, row.data(), row.data());
      as_halves.append(position, row.data(), row.data());
      most = std::max(most, memory.bytes());
      if (position % 50 != 7 && position > 60) continue;
      const auto now = keys_of(head), unrounded = keys_of(as_halves);
      const int newest = head.parts().back().block->position(0);
      for (const auto& [at, key] : now) {
        const bool is_half = at >= newest || std::ranges::binary_search(exact, at);
        EXPECT_EQ(key == unrounded.at(at), is_half) << at << " of " << position;
        if (is_half) continue;
        EXPECT_EQ(settled.try_emplace(at, key).first->second, key) << at << " of " << position;
      }
    }
    // At worst, and with holes, a coded row alone in its block: its keys' grids, the head of a block and its part.
    const size_t alone = sizeof(Block) + Block::data_bytes(*memory.layers()[0].storage, true, 1) + 2 * sizeof(Head::Part);
    EXPECT_LE(most, 200 * alone + 64 * Block::data_bytes(*memory.layers()[0].storage, true, kBlockRows) / kBlockRows + 16 * 1024);
    EXPECT_LT(most, halves.bytes());

    // Saved in the middle of a block, it goes on as the original does.
    Memory back(attention::kernels("auto"), precision, exact);
    from_bytes(to_bytes(memory), back);
    for (int position = 3000; position < 3040; ++position) {
      const std::vector<float> row = rows.next();
      head.append(position, row.data(), row.data());
      back.layers()[0].heads[0].append(position, row.data(), row.data());
    }
    EXPECT_EQ(keys_of(back.layers()[0].heads[0]), keys_of(head));
  }
}

TEST(Coded, FourBitsAreLessThanFiveInAll) {
  constexpr int kHead = 32;  // of all layers
  Memory memory(attention::kernels("auto"), Precision::q4c, {0, 1, 2, 3});
  Layer& layer = memory.layer(0, kHead, Rows::kDim, Rows::kDim);
  Rows rows;
  for (int position = 0; position < 2048; ++position) {
    const std::vector<float> row = rows.next();
    for (Head& head : layer.heads) head.append(position, row.data(), row.data());
  }
  EXPECT_LE(8.0 * static_cast<double>(memory.bytes()) / (kHead * 2048 * 2 * Rows::kDim), 5);
  EXPECT_THROW(memory.layer(1, 1, 80, 80), InputError);
}

TEST(Coded, WhatIsNoNumberHarmsNothingElse) {
  Memory memory(attention::kernels("auto"), Precision::q4c);
  Head& head = memory.layer(0, 1, Rows::kDim, Rows::kDim).heads[0];
  Rows rows;
  for (int position = 0; position < 40; ++position) {
    std::vector<float> row = rows.next();
    if (position == 3) row[5] = NAN, row[6] = INFINITY, row[7] = -INFINITY;
    head.append(position, row.data(), row.data());
  }
  for (const auto& [at, key] : keys_of(head))
    for (const float x : key) EXPECT_TRUE(std::isfinite(x)) << at;
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
