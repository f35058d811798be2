// Rotations read off ggml's operation: turning further by them is what ggml does at a later position.
#include "backend/rope.h"

#include <cmath>
#include <numeric>
#include <optional>

#include <gtest/gtest.h>

#include "backend/graph_for_tests.h"
#include "cache/memory.h"

namespace sinkscope::backend {
namespace {

struct Variant {
  const char* name;
  int d, n_rot, mode;
  float base = 10000, scale = 1, yarn = 0, magnitude = 1;
  bool factors = false;
};

class RopeTest : public testing::TestWithParam<Variant> {};

std::vector<float> computed(Graph& g, const ggml_tensor* t) {
  ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
  EXPECT_EQ(ggml_backend_graph_compute(cpu, g.graph), GGML_STATUS_SUCCESS);
  ggml_backend_free(cpu);
  const auto* values = static_cast<const float*>(t->data);
  return {values, values + ggml_nelements(t)};
}

TEST_P(RopeTest, TurnsCompose) {
  const Variant v = GetParam();
  const int n_head = 3, n_token = 5, per_token = v.mode == GGML_ROPE_TYPE_MROPE ? 4 : 1;
  const auto rotated_from = [&](int position) {
    Graph g;
    std::mt19937 random(5);
    ggml_tensor* x = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, v.d, n_head, n_token);
    ggml_tensor* positions = ggml_new_tensor_1d(g.context, GGML_TYPE_I32, n_token * per_token);
    ggml_tensor* factors = v.factors ? ggml_new_tensor_1d(g.context, GGML_TYPE_F32, v.n_rot / 2) : nullptr;
    int sections[4] = {v.n_rot / 8, v.n_rot / 8, v.n_rot / 4, 0};
    ggml_tensor* rope = per_token == 4
                            ? ggml_rope_multi(g.context, x, positions, factors, v.n_rot, sections, v.mode, 4096, v.base, v.scale, v.yarn, v.magnitude, 32, 1)
                            : ggml_rope_ext(g.context, x, positions, factors, v.n_rot, v.mode, 4096, v.base, v.scale, v.yarn, v.magnitude, 32, 1);
    ggml_tensor* queries = ggml_permute(g.context, rope, 0, 2, 1, 3);
    ggml_build_forward_expand(g.graph, queries);
    g.allocate();
    fill(x, random);
    for (int i = 0; i < n_token * per_token; ++i) static_cast<int32_t*>(positions->data)[i] = position + i % n_token;
    for (int i = 0; factors && i < v.n_rot / 2; ++i) static_cast<float*>(factors->data)[i] = 1 + static_cast<float>(i);
    const std::vector<float> out = computed(g, rope);
    bool hidden = false;
    EXPECT_EQ(rope_of(queries, hidden), rope);
    EXPECT_FALSE(hidden);
    return std::pair(out, read_rope(rope));
  };
  const auto [early, turn] = rotated_from(40);
  EXPECT_EQ(turn.first.size(), static_cast<size_t>(v.n_rot / 2));
  for (const int later : {41, 1000, 4000}) {
    std::vector<float> turned = early;
    const std::vector<float> want = rotated_from(later).first;
    for (int row = 0; row < n_head * n_token; ++row)
      for (size_t i = 0; i < turn.first.size(); ++i) {
        const double angle = turn.angle[i] * (later - 40);
        float &a = turned[row * v.d + turn.first[i]], &b = turned[row * v.d + turn.second[i]];
        const double turned_a = a * std::cos(angle) - b * std::sin(angle), turned_b = a * std::sin(angle) + b * std::cos(angle);
        a = static_cast<float>(turned_a);
        b = static_cast<float>(turned_b);
      }
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(turned[i], want[i], 1e-3) << later << ' ' << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, RopeTest,
                         testing::Values(Variant{"interleaved", 64, 64, GGML_ROPE_TYPE_NORMAL}, Variant{"halves", 64, 64, GGML_ROPE_TYPE_NEOX},
                                         Variant{"partial", 96, 32, GGML_ROPE_TYPE_NEOX, 1e6f}, Variant{"linear", 64, 64, GGML_ROPE_TYPE_NORMAL, 10000, .25f},
                                         Variant{"yarn", 128, 128, GGML_ROPE_TYPE_NEOX, 10000, 1.0f / 32, 1, 1.2f},
                                         Variant{"factors", 64, 64, GGML_ROPE_TYPE_NORMAL, 5e5f, 1, 0, 1, true},
                                         Variant{"sections", 64, 64, GGML_ROPE_TYPE_MROPE}),
                         [](const auto& p) { return std::string(p.param.name); });

// A sink's key was rotated at position 0, long ago. What a query makes of it must be what it would be if the sink stood
// directly before the window and all were computed anew.
TEST(Rope, ASinkIsMetAsAnewAfterFourMillionPositions) {
  constexpr int kDim = 128, kRow = 1024;
  std::optional<Rope> turn;
  const auto rotated = [&](int seed, int position) {
    Graph g;
    std::mt19937 random(seed);
    ggml_tensor* x = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, kDim, 1, 1);
    ggml_tensor* positions = ggml_new_tensor_1d(g.context, GGML_TYPE_I32, 1);
    ggml_tensor* rope = ggml_rope_ext(g.context, x, positions, nullptr, kDim, GGML_ROPE_TYPE_NEOX, 4096, 1e6f, 1, 0, 1, 32, 1);
    ggml_build_forward_expand(g.graph, rope);
    g.allocate();
    fill(x, random);
    static_cast<int32_t*>(positions->data)[0] = position;
    const std::vector<float> out = computed(g, rope);
    if (!turn) turn = read_rope(rope);
    return out;
  };
  const auto logit = [](const std::vector<float>& q, const std::vector<float>& k) { return std::inner_product(q.begin(), q.end(), k.begin(), 0.0); };
  cache::Memory memory(attention::kernels("auto"));
  while (memory.n_past() < 4'000'000) {
    memory.start_batch();
    memory.end_batch(500);
  }
  memory.start_batch();
  const std::vector<float> sink = rotated(1, 0);
  for (const int seed : {2, 3, 4}) {
    const auto told = static_cast<int>(memory.n_past() - memory.base());
    std::vector<float> query = rotated(seed, told);
    const double angle_positions = 0 - (told - kRow);  // rotated at 0, stands kRow before the query
    for (size_t i = 0; i < turn->first.size(); ++i) {
      const double angle = turn->angle[i] * angle_positions;
      float &a = query[turn->first[i]], &b = query[turn->second[i]];
      const double turned_a = a * std::cos(angle) - b * std::sin(angle), turned_b = a * std::sin(angle) + b * std::cos(angle);
      a = static_cast<float>(turned_a);
      b = static_cast<float>(turned_b);
    }
    const double anew = logit(rotated(seed, kRow), sink);
    EXPECT_NEAR(logit(query, sink) / anew, 1, 1e-3);
  }
}

TEST(Rope, WhatLiesBetweenIsTold) {
  Graph g;
  ggml_tensor* x = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, 32, 2, 4);
  ggml_tensor* rope = ggml_rope(g.context, x, ggml_new_tensor_1d(g.context, GGML_TYPE_I32, 4), 32, 0);
  const auto found = [](const ggml_tensor* queries) {
    bool hidden = false;
    const ggml_tensor* at = rope_of(queries, hidden);
    return std::pair(at, hidden);
  };
  EXPECT_EQ(found(ggml_permute(g.context, x, 0, 2, 1, 3)), std::pair(static_cast<const ggml_tensor*>(nullptr), false));
  EXPECT_EQ(found(ggml_rms_norm(g.context, rope, 1e-5f)), std::pair(static_cast<const ggml_tensor*>(rope), false));
  EXPECT_EQ(found(ggml_mul(g.context, rope, ggml_new_tensor_3d(g.context, GGML_TYPE_F32, 1, 1, 4))), std::pair(static_cast<const ggml_tensor*>(rope), false));
  EXPECT_EQ(found(ggml_mul(g.context, rope, ggml_new_tensor_1d(g.context, GGML_TYPE_F32, 32))), std::pair(static_cast<const ggml_tensor*>(rope), true));
  EXPECT_EQ(found(ggml_concat(g.context, x, rope, 0)), std::pair(static_cast<const ggml_tensor*>(rope), true));
}

}  // namespace
}  // namespace sinkscope::backend
