// The device against the double reference and against ggml's own attention, on graphs of one operation.
#include "backend/operation.h"

#include <cmath>
#include <memory>

#include <gtest/gtest.h>

#include "attention/reference.h"
#include "backend/device.h"
#include "backend/graph_for_tests.h"
#include "backend/registry.h"

namespace sinkscope::backend {
namespace {

struct Types {
  ggml_type k, v;
};

class DeviceTest : public testing::TestWithParam<Types> {};

TEST_P(DeviceTest, EqualsTheReferenceForEveryTypeOfKeysAndValues) {
  constexpr int kHead = 6, kHeadKv = 2, kQuery = 20, kKey = 64, kDim = 64;
  std::mt19937 random(3);
  Graph g;
  // As llama.cpp lays them out: [d, head, token], seen as [d, token, head].
  ggml_tensor* q = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, kDim, kHead, kQuery);
  ggml_tensor* k = ggml_new_tensor_3d(g.context, GetParam().k, kDim, kHeadKv, kKey);
  ggml_tensor* v = ggml_new_tensor_3d(g.context, GetParam().v, kDim, kHeadKv, kKey);
  ggml_tensor* mask = ggml_new_tensor_2d(g.context, GGML_TYPE_F16, kKey, kQuery);
  ggml_set_name(k, "cache_k_l11");
  const auto by_head = [&](ggml_tensor* t) { return ggml_permute(g.context, t, 0, 2, 1, 3); };
  ggml_tensor* out = ggml_flash_attn_ext(g.context, by_head(q), by_head(k), by_head(v), mask, .125f, 0, 0);
  ggml_build_forward_expand(g.graph, out);
  g.allocate();
  for (ggml_tensor* t : {q, k, v}) fill(t, random);
  std::vector<ggml_fp16_t> visible;
  for (int i = 0; i < kQuery; ++i)
    for (int j = 0; j < kKey; ++j) visible.push_back(ggml_fp32_to_fp16(j <= kKey - kQuery + i ? 0 : -INFINITY));
  ggml_backend_tensor_set(mask, visible.data(), 0, ggml_nbytes(mask));

  ASSERT_EQ(reason_against(out), std::nullopt);
  const attention::Reference want = attention::reference(call_of(out));

  auto attachment = std::make_shared<Attachment>();
  attachment->kernels = &attention::kernels("auto");
  attachment->n_thread = 2;
  const AttachScope scope(attachment);
  ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(registry(), 0), nullptr);
  ASSERT_TRUE(ggml_backend_supports_op(backend, out));
  ASSERT_EQ(ggml_backend_graph_compute(backend, g.graph), GGML_STATUS_SUCCESS);
  ggml_backend_free(backend);
  EXPECT_EQ(attachment->n_operation, 1);
  std::vector<float> got(ggml_nelements(out));
  ggml_backend_tensor_get(out, got.data(), 0, ggml_nbytes(out));
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want.out[i], 1e-5 * (1 + std::abs(want.out[i]))) << i;

  int index = 0;
  while (ggml_graph_node(g.graph, index) != out) ++index;
  EXPECT_EQ(layer_of(g.graph, index), 11);
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceTest,
                         testing::Values(Types{GGML_TYPE_F32, GGML_TYPE_F32}, Types{GGML_TYPE_F16, GGML_TYPE_F16}, Types{GGML_TYPE_BF16, GGML_TYPE_BF16},
                                         Types{GGML_TYPE_Q8_0, GGML_TYPE_Q8_0}, Types{GGML_TYPE_Q4_0, GGML_TYPE_Q4_0}, Types{GGML_TYPE_Q5_1, GGML_TYPE_Q4_1},
                                         Types{GGML_TYPE_IQ4_NL, GGML_TYPE_Q5_0}, Types{GGML_TYPE_Q8_0, GGML_TYPE_F16}),
                         [](const auto& p) { return std::string(ggml_type_name(p.param.k)) + "_" + ggml_type_name(p.param.v); });

TEST(Device, WithoutAnAttachmentItTakesNothing) {
  Graph g;
  ggml_tensor* x = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, 32, 4, 2);
  ggml_tensor* out = ggml_flash_attn_ext(g.context, x, x, x, nullptr, 1, 0, 0);
  ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(registry(), 0), nullptr);
  EXPECT_FALSE(ggml_backend_supports_op(backend, out));
  ggml_backend_free(backend);
}

TEST(Device, WhatItCannotTakeIsNamed) {
  Graph g;
  ggml_tensor* q = ggml_new_tensor_3d(g.context, GGML_TYPE_F32, 32, 4, 6);
  ggml_tensor* k = ggml_new_tensor_3d(g.context, GGML_TYPE_F16, 32, 4, 2);
  ggml_tensor* v = ggml_new_tensor_3d(g.context, GGML_TYPE_F16, 32, 4, 3);
  EXPECT_EQ(reason_against(ggml_flash_attn_ext(g.context, q, k, k, nullptr, 1, 0, 0)), std::nullopt);
  EXPECT_EQ(reason_against(ggml_flash_attn_ext(g.context, q, k, v, nullptr, 1, 0, 0)), "keys and values with different numbers of heads");
  ggml_tensor* i32 = ggml_new_tensor_3d(g.context, GGML_TYPE_I32, 32, 4, 2);
  EXPECT_EQ(reason_against(ggml_flash_attn_ext(g.context, q, k, i32, nullptr, 1, 0, 0)), "keys or values of type i32");
}

}  // namespace
}  // namespace sinkscope::backend
