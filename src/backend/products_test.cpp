// Matrix products by OpenBLAS against plain sums in double.
#include "backend/products.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "backend/graph_for_tests.h"

namespace sinkscope::backend {
namespace {

struct Shape {
  ggml_type type;
  int n_in, n_row, n_token;
  int n_plane_w = 1, n_plane = 1;  // planes of weights are repeated for those of activations
};

class ProductTest : public testing::TestWithParam<Shape> {};

std::vector<float> decoded(const ggml_tensor* w) {
  std::vector<float> values(ggml_nelements(w));
  if (w->type == GGML_TYPE_F32) std::memcpy(values.data(), w->data, ggml_nbytes(w));
  else ggml_get_type_traits(w->type)->to_float(w->data, values.data(), ggml_nelements(w));
  return values;
}

TEST_P(ProductTest, EqualsPlainSumsWithTheSameBitsForAnyNumberOfThreads) {
  const Shape s = GetParam();
  std::mt19937 random(5);
  Graph g;
  ggml_tensor* w = ggml_new_tensor_3d(g.context, s.type, s.n_in, s.n_row, s.n_plane_w);
  ggml_tensor* x = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, s.n_in, s.n_token, s.n_plane);
  ggml_tensor* out = ggml_mul_mat(g.context, w, x);
  g.allocate();
  fill(w, random);
  fill(x, random);
  ASSERT_TRUE(takes(Products::every, out));
  attention::Workspace work;
  multiply(out, 1, work);
  const auto* got = static_cast<const float*>(out->data);
  const std::vector<float> weights = decoded(w), alone(got, got + ggml_nelements(out));
  const auto* activations = static_cast<const float*>(x->data);
  for (int p = 0; p < s.n_plane; ++p)
    for (int t = 0; t < s.n_token; ++t)
      for (int r = 0; r < s.n_row; ++r) {
        double want = 0, size = 0;
        for (int i = 0; i < s.n_in; ++i) {
          const double a = weights[(static_cast<size_t>(p / (s.n_plane / s.n_plane_w)) * s.n_row + r) * s.n_in + i];
          const double b = activations[(static_cast<size_t>(p) * s.n_token + t) * s.n_in + i];
          want += a * b;
          size += std::abs(a * b);
        }
        ASSERT_NEAR(got[(static_cast<size_t>(p) * s.n_token + t) * s.n_row + r], want, 1e-6 * (1 + size));
      }
  for (const int n_thread : {2, 3}) {
    std::fill_n(static_cast<float*>(out->data), alone.size(), 0.0f);
    multiply(out, n_thread, work);
    ASSERT_TRUE(std::equal(alone.begin(), alone.end(), got)) << n_thread;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ProductTest,
                         testing::Values(Shape{GGML_TYPE_F32, 64, 1, 1}, Shape{GGML_TYPE_F32, 100, 95, 3}, Shape{GGML_TYPE_F16, 96, 97, 33},
                                         Shape{GGML_TYPE_BF16, 64, 300, 40}, Shape{GGML_TYPE_Q4_1, 576, 192, 64},
                                         Shape{GGML_TYPE_Q6_K, 512, 200, 5}, Shape{GGML_TYPE_Q8_0, 64, 130, 9, 2, 6},
                                         Shape{GGML_TYPE_F32, 32, 7, 0}));

TEST(Product, WhatItCannotTakeStaysWithGgml) {
  Graph g;
  ggml_tensor* w = ggml_new_tensor_2d(g.context, GGML_TYPE_F16, 64, 32);
  ggml_tensor* x = ggml_new_tensor_2d(g.context, GGML_TYPE_F32, 64, 8);
  EXPECT_TRUE(takes(Products::every, ggml_mul_mat(g.context, w, x)));
  EXPECT_FALSE(takes(Products::every, ggml_mul_mat(g.context, w, ggml_new_tensor_2d(g.context, GGML_TYPE_F16, 64, 8))));
  ggml_tensor* half = ggml_view_2d(g.context, x, 32, 8, x->nb[1], 0);
  EXPECT_FALSE(takes(Products::every, ggml_mul_mat(g.context, ggml_new_tensor_2d(g.context, GGML_TYPE_F32, 32, 4), half)));
  ggml_tensor* hadamard = ggml_mul_mat(g.context, w, x);
  hadamard->op_params[1] = GGML_HINT_SRC0_IS_HADAMARD;
  EXPECT_FALSE(takes(Products::every, hadamard));
}

TEST(Product, WhereItIsFasterItTakesLongOnesOfSomeTypes) {
  Graph g;
  const auto takes_product = [&](ggml_type type, int n_token) {
    ggml_tensor* w = ggml_new_tensor_2d(g.context, type, 256, 32);
    return takes(Products::where_faster, ggml_mul_mat(g.context, w, ggml_new_tensor_2d(g.context, GGML_TYPE_F32, 256, n_token)));
  };
  EXPECT_TRUE(takes_product(GGML_TYPE_Q4_1, 32));
  EXPECT_FALSE(takes_product(GGML_TYPE_Q4_1, 31));
  EXPECT_FALSE(takes_product(GGML_TYPE_Q6_K, 512));
}

}  // namespace
}  // namespace sinkscope::backend
