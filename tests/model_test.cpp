// On real models: figures of Hugging Face in float32, and the promises that must hold on any model.
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "attention/kernels.h"
#include "measure/metrics.h"
#include "measure/recorder.h"
#include "sinkscope/error.h"
#include "sinkscope/models.h"
#include "sinkscope/session.h"

namespace sinkscope {
namespace {

using measure::Recorder;

const attention::Kernels& best() { return attention::kernels("auto"); }

struct Setting {
  int n_batch = 512, n_thread = 2;
  bool all_logits = false, blas = true;
  const char* kv_type = "f16";
};

Session session_of(const Model& model, int n_context, const Setting& s = {}) {
  return Session(model, {.n_context = n_context, .n_batch = s.n_batch, .n_thread = s.n_thread, .kv_type = s.kv_type, .isa = "auto",
                         .attention = Attention::sinkscope, .all_logits = s.all_logits, .blas = s.blas});
}

void record(Session& session, const std::vector<int>& tokens, Recorder& recorder) {
  recorder.start(static_cast<int>(tokens.size()));
  session.watch({&recorder});
  session.run(tokens);
}

// Tokens, alpha of the first token and sink rate, by Hugging Face eager attention in float32 on the GGUF's weights.
struct Golden {
  const char *model, *file, *set;
};

class GoldenTest : public testing::TestWithParam<Golden> {};

TEST_P(GoldenTest, EqualsHuggingFaceInFloat32) {
  std::ifstream file(std::string(SINKSCOPE_GOLDEN "/") + GetParam().file);
  const auto golden = nlohmann::json::parse(file).at("sets").at(GetParam().set);
  const std::vector<std::vector<int>> prompts = golden.at("tokens");
  const Model model(GetParam().model);
  Session session = session_of(model, 64);
  Recorder recorder(best());
  measure::Tally tally(.3f, 16);
  for (const auto& tokens : prompts) {
    record(session, tokens, recorder);
    tally.add(recorder, tokens);
  }
  EXPECT_NEAR(tally.sink_rate(1).first, golden.at("sink_rate_first"), .4);  // points

  const std::vector<std::vector<std::vector<double>>> alpha = golden.at("alpha_first");  // [prompt][layer][head]
  double difference = 0;
  int n = 0;
  for (const LayerProfile& layer : tally.layers())
    for (const HeadProfile& head : layer.heads) {
      double want = 0;
      for (const auto& prompt : alpha) want += prompt.at(layer.layer).at(head.head) / static_cast<double>(alpha.size());
      difference += std::abs(head.alpha_first - want);
      ++n;
    }
  EXPECT_EQ(n, static_cast<int>(alpha[0].size() * alpha[0][0].size()));
  EXPECT_LE(difference / n, .003);
}

std::vector<Golden> goldens() {
  std::vector<Golden> all;
  for (const auto& [model, file] : {std::pair("smollm2-135m", "smollm2-135m-q4_1.json"), {"gemma3-270m", "gemma3-270m-q4_k_m.json"},
                                    {"qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-q4_k_m.json"}})
    for (const char* set : {"natural", "random", "repeat"}) all.push_back({model, file, set});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(goldens()), [](const auto& p) {
  std::string name = std::string(p.param.model) + "_" + p.param.set;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

class SmolLm : public testing::Test {
 protected:
  void SetUp() override {
    model = std::make_unique<Model>("smollm2-135m");
    const std::string text = "A glacier is a body of ice that moves under its own weight. It forms where more snow falls than melts, "
                             "over many years, until the snow below has turned to ice. Glaciers carve valleys, carry rock and feed rivers; ";
    tokens = model->tokenize(text + text + text + text);
    tokens.insert(tokens.begin(), model->info().bos);
    tokens.resize(150);
  }
  // Every number of both is within the tolerance; 0: the same bits.
  static void expect_same(const Recorder& a, const Recorder& b, double tolerance) {
    ASSERT_EQ(a.layers().size(), b.layers().size());
    for (size_t l = 0; l < a.layers().size(); ++l) {
      const auto& x = a.layers()[l];
      const auto& y = b.layers()[l];
      EXPECT_EQ(x.column_n_row, y.column_n_row);
      for (const auto array : {&measure::LayerRecord::column_sum, &measure::LayerRecord::column_max, &measure::LayerRecord::entropy,
                               &measure::LayerRecord::first_mass}) {
        ASSERT_EQ((x.*array).size(), (y.*array).size());
        for (size_t i = 0; i < (x.*array).size(); ++i)
          if (tolerance == 0) ASSERT_EQ((x.*array)[i], (y.*array)[i]) << "layer " << l << " element " << i;
          else ASSERT_NEAR((x.*array)[i], (y.*array)[i], tolerance * (1 + std::abs((y.*array)[i]))) << "layer " << l << " element " << i;
      }
    }
  }
  std::unique_ptr<Model> model;
  std::vector<int> tokens;
};

TEST_F(SmolLm, SameBitsForAnyNumberOfThreads) {
  for (const bool blas : {true, false}) {
    SCOPED_TRACE(blas ? "OpenBLAS" : "ggml's products");
    Recorder one(best()), more(best());
    Session alone = session_of(*model, 150, {.n_batch = 64, .n_thread = 1, .blas = blas});
    record(alone, tokens, one);
    for (const int n_thread : {2, 3}) {
      Session shared = session_of(*model, 150, {.n_batch = 64, .n_thread = n_thread, .blas = blas});
      record(shared, tokens, more);
      expect_same(one, more, 0);
    }
  }
}

TEST_F(SmolLm, SameStatisticsForAnyBatches) {
  Recorder whole(best()), parts(best());
  const std::vector<int> some(tokens.begin(), tokens.begin() + 70);  // with OpenBLAS, each batch decodes all weights
  for (const bool blas : {true, false}) {
    const auto run = [&](int n_batch, Recorder& recorder) {
      Session session = session_of(*model, 70, {.n_batch = n_batch, .blas = blas, .kv_type = "f32"});
      record(session, some, recorder);
    };
    run(512, whole);
    for (const int n_batch : {1, 7, 64}) {
      SCOPED_TRACE(testing::Message() << n_batch << (blas ? " OpenBLAS" : " ggml's products"));
      run(n_batch, parts);
      expect_same(parts, whole, 1e-4);
    }
  }
}

TEST_F(SmolLm, MeasuringChangesNoLogit) {
  Session session = session_of(*model, 150, {.n_batch = 64, .all_logits = true});
  std::vector<float> alone, watched;
  session.run(tokens, &alone);
  Recorder recorder(best(), {.maps = {{3, 1}}});
  recorder.start(150);
  session.watch({&recorder});
  session.run(tokens, &watched);
  EXPECT_EQ(alone, watched);
}

TEST_F(SmolLm, MetricsNeedOnlyTheLastRowsOfTheFirstMass) {
  Session session = session_of(*model, 150);
  Recorder whole(best()), spare(best(), {.maps = {}, .all_first_mass = false});
  measure::Tally a(.3f, 16), b(.3f, 16);
  record(session, tokens, whole);
  a.add(whole, tokens);
  record(session, tokens, spare);
  b.add(spare, tokens);
  EXPECT_EQ(a.first_share(1).share, b.first_share(1).share);
  EXPECT_GT(a.first_share(1).share[0], .2);
  EXPECT_LT(spare.layers()[0].first_mass.size(), whole.layers()[0].first_mass.size());
}

TEST_F(SmolLm, AppendingTokenByTokenIsRunningOn) {
  const Setting setting = {.n_batch = 64, .all_logits = true, .kv_type = "f32"};
  Session at_once = session_of(*model, 150, setting), by_token = session_of(*model, 150, setting);
  Recorder whole(best()), parts(best());
  std::vector<float> want, got;
  whole.start(150);
  at_once.watch({&whole});
  at_once.run(tokens, &want);
  parts.start(150);
  by_token.watch({&parts});
  by_token.run(std::span(tokens).first(100));
  for (size_t i = 100; i < 150; ++i) by_token.append(std::span(tokens).subspan(i, 1), &got);
  expect_same(parts, whole, 1e-4);
  want.erase(want.begin(), want.end() - model->info().n_vocab);
  for (size_t v = 0; v < want.size(); ++v) ASSERT_NEAR(got[v], want[v], 1e-3 * (1 + std::abs(want[v])));
  EXPECT_THROW(by_token.append(std::span(tokens).first(1)), InputError);
}

TEST_F(SmolLm, ColumnSumsAreThoseOfTheWholeMap) {
  Session session = session_of(*model, 150, {.n_batch = 64});
  Recorder recorder(best(), {.maps = {{17, 5}}});
  record(session, tokens, recorder);
  const auto map = recorder.map({17, 5});
  const auto& layer = recorder.layers()[17];
  for (int k = 0; k < 150; ++k) {
    double sum = 0;
    for (int i = 0; i < 150; ++i) sum += map[i * 150 + k];
    EXPECT_NEAR(sum, layer.column_sum[5 * 150 + k], 1e-4 * (1 + sum));
  }
  for (int i = 0; i < 150; ++i) {
    double sum = 0;
    for (int k = 0; k < 150; ++k) sum += map[i * 150 + k];
    EXPECT_NEAR(sum, 1, 1e-5);
    EXPECT_NEAR(map[i * 150], layer.first_mass[layer.first_mass_at(5, i, 150)], 1e-6);
  }
}

// One repeated token without BOS: all positions have the same hidden state, so with RoPE a logit depends on the
// distance alone and A[i,i-d] / A[i,i] is the same in every row; no position can stand out as a sink. (The weights
// of a row are not equal: the distance still turns the keys. Hugging Face's figures show the same.)
TEST_F(SmolLm, OneRepeatedTokenLeavesNothingButDistance) {
  const std::vector<int> repeated(64, 1234);
  std::vector<std::pair<int, int>> maps = {{0, 0}, {5, 4}, {17, 5}, {29, 8}};
  Session session = session_of(*model, 64, {.all_logits = true, .blas = false, .kv_type = "f32"});
  Recorder recorder(best(), {.maps = maps});
  recorder.start(64);
  session.watch({&recorder});
  std::vector<float> logits;
  session.run(repeated, &logits);
  const size_t n_vocab = model->info().n_vocab;
  for (size_t i = 1; i < 64; ++i)
    for (size_t v = 0; v < n_vocab; v += 997) ASSERT_NEAR(logits[i * n_vocab + v], logits[v], 2e-3 * (1 + std::abs(logits[v])));
  for (const auto& key : maps) {
    const auto a = recorder.map(key);
    for (int i = 1; i < 63; ++i)
      for (int d = 1; d <= i; ++d) {
        const double here = a[i * 64 + i - d] / a[i * 64 + i], last = a[63 * 64 + 63 - d] / a[63 * 64 + 63];
        ASSERT_NEAR(here, last, 5e-3 * (1 + last)) << key.first << ':' << key.second << " row " << i << " distance " << d;
      }
  }
}

TEST_F(SmolLm, TwoSessionsShareAModelAndDoNotMeet) {
  Session measuring = session_of(*model, 150), plain(*model, {.n_context = 150, .n_batch = 512, .n_thread = 2, .kv_type = "f16", .isa = "auto",
                                                              .attention = Attention::llama_flash, .all_logits = true, .blas = true});
  Recorder alone(best()), beside(best());
  record(measuring, tokens, alone);
  std::vector<float> logits;
  plain.run(tokens, &logits);
  EXPECT_EQ(plain.n_operation(), 0);
  record(measuring, tokens, beside);
  expect_same(alone, beside, 0);
}

}  // namespace
}  // namespace sinkscope
