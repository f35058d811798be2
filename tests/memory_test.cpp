// Owned memory on real models, against the same models over llama.cpp's cache.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "sinkscope/error.h"
#include "sinkscope/models.h"
#include "sinkscope/session.h"

namespace sinkscope {
namespace {

std::vector<int> random_tokens(const Model& model, int n) {
  std::mt19937 random(3);
  std::vector<int> tokens(n);
  for (int& t : tokens) t = static_cast<int>(random() % static_cast<unsigned>(model.info().n_vocab));
  if (model.info().bos >= 0) tokens[0] = model.info().bos;
  return tokens;
}

SessionOptions options(int n_batch, std::optional<MemoryOptions> memory, const char* kv_type = "f32") {
  return {.n_context = 1024, .n_batch = n_batch, .n_thread = 2, .kv_type = kv_type, .isa = "auto", .attention = Attention::sinkscope,
          .all_logits = true, .blas = true, .batch_invariant = true, .memory = std::move(memory)};
}

// Normalised squared error.
double error_of(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    difference += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
    size += static_cast<double>(want[i]) * want[i];
  }
  return difference / size;
}

class MemoryTest : public testing::TestWithParam<const char*> {};

TEST_P(MemoryTest, FullEqualsLlamasCache) {
  const Model model(GetParam());
  const std::vector<int> tokens = random_tokens(model, 200);
  std::vector<float> want, got;
  Session(model, options(32, std::nullopt)).run(tokens, &want);
  for (const char* positions : {"cache", "gaps"}) {
    Session session(model, options(32, MemoryOptions{.policy = "full", .budget = 0, .sinks = 4, .positions = positions}));
    session.run(tokens, &got);
    EXPECT_LE(error_of(got, want), 1e-6) << positions;
    session.run(tokens, &got);  // from an empty memory again
    EXPECT_LE(error_of(got, want), 1e-6) << positions;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, MemoryTest, testing::Values("smollm2-135m", "gemma3-270m", "qwen2.5-coder-1.5b"));

}  // namespace
}  // namespace sinkscope
