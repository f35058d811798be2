// Models and objectives against what can be known of them: identities, finite differences, plain sums.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "test_models.h"
#include "training/telemetry.h"

namespace sinkscope::train {
namespace {

std::vector<std::string> variant_names() {
  std::vector<std::string> names;
  for (const Variant& v : variants()) names.emplace_back(v.name);
  return names;
}

// How far another token at `changed` moves each position's logits.
Tensor moved_by(LanguageModel& model, const Tensor& tokens, int64_t changed) {
  Tensor other = tokens.clone();
  other[0][changed] = (other[0][changed] + 1) % kVocab;
  return (model(tokens) - model(other)).abs().amax(-1)[0];
}

struct Kind {
  std::string name;
  ModelConfig model;
};

// Every variant, then what else a model can be.
std::vector<Kind> kinds() {
  std::vector<Kind> all;
  const auto add = [&](const char* name, const char* attention, void (*change)(ModelConfig&)) { change(all.emplace_back(name, small(attention)).model); };
  for (const Variant& v : variants()) add(v.name, v.name, [](ModelConfig&) {});
  add("learned_positions", "sink_token", [](ModelConfig& c) { c.position = "learned"; });
  add("alibi", "kv_bias", [](ModelConfig& c) { c.position = "alibi"; });
  add("no_positions", "softmax", [](ModelConfig& c) { c.position = "none", c.activation = "gelu"; });
  add("post_norm", "softmax", [](ModelConfig& c) { c.norm = "post", c.qk_norm = "before"; });
  add("sandwich_norm", "softmax", [](ModelConfig& c) { c.norm = "sandwich", c.qk_norm = "behind", c.tied = false; });
  add("experts", "softmax", [](ModelConfig& c) { c.n_expert = 4, c.n_expert_shared = 1, c.balance = 0.5; });
  add("prefix", "sink_token", [](ModelConfig& c) { c.prefix = 6; });
  add("diffusion", "softmax", [](ModelConfig& c) { c.diffusion = true; });
  return all;
}

class EveryVariant : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Variants, EveryVariant, testing::ValuesIn(variant_names()), [](const auto& name) { return name.param; });
class EveryKind : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind, testing::ValuesIn(kinds()), [](const auto& kind) { return kind.param.name; });

TEST_P(EveryKind, GradientIsWhatFiniteDifferencesSay) {
  LanguageModel model = shaken(GetParam().model, torch::kDouble);
  const Tensor tokens = some_tokens();
  const auto loss = [&] { return objective(model, tokens); };
  loss().backward();
  const torch::NoGradGuard no_grad;
  torch::manual_seed(11);
  constexpr double kStep = 1e-7;  // so small that hardly any logit of relu and softpick passes its kink
  for (const auto& p : model->named_parameters()) {
    ASSERT_TRUE(p.value().grad().defined()) << p.key();
    const Tensor direction = torch::randn_like(p.value()), before = p.value().clone();
    const double slope = (p.value().grad() * direction).sum().item<double>();
    p.value().copy_(before + kStep * direction);
    const double above = loss().item<double>();
    p.value().copy_(before - kStep * direction);
    const double below = loss().item<double>();
    p.value().copy_(before);
    EXPECT_NEAR((above - below) / (2 * kStep), slope, 1e-6 + 1e-5 * std::abs(slope)) << p.key();
  }
}

TEST_P(EveryKind, ALaterTokenChangesNoEarlierLogit) {
  ModelConfig c = GetParam().model;
  for (const int window : {0, 5}) {
    c.window = window;
    LanguageModel model = shaken(c);
    constexpr int64_t kChanged = 15;
    const Tensor moved = moved_by(model, some_tokens(1).narrow(1, 0, kContext), kChanged);
    EXPECT_EQ(moved.narrow(0, 0, kChanged).max().item<float>() > 0, c.diffusion);  // it sees both ways
    EXPECT_GT(moved[kChanged].item<float>(), 0);
  }
}

TEST_P(EveryVariant, WeightsOfHiddenKeysAreZero) {
  const Tensor logits = torch::randn({1, 2, 6, 6}) * 3, visible = torch::ones({6, 6}, torch::kBool).tril();
  const Learned learned{.sink_logit = torch::randn({2})};
  const Tensor weights = variant(GetParam()).weigh(logits, visible, learned);
  EXPECT_EQ(weights.triu(1).abs().max().item<float>(), 0);
  EXPECT_TRUE(torch::isfinite(weights).all().item<bool>());
}

TEST(Variants, AreSoftmaxWhereTheySaySo) {
  torch::manual_seed(7);
  const Tensor logits = torch::randn({2, 3, 7, 7}) * 4, visible = torch::ones({7, 7}, torch::kBool).tril();
  const auto weights = [&](const char* name, const Learned& learned = {}) { return variant(name).weigh(logits, visible, learned); };
  const auto same = [](const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); };
  EXPECT_LT(same(weights("sink_logit", {.sink_logit = torch::zeros({3})}), weights("softmax1")), 1e-7);
  EXPECT_LT(same(weights("sink_logit", {.sink_logit = torch::full({3}, -1e30)}), weights("softmax")), 2.5e-7);  // one more number in the sum: two roundings of floats
  EXPECT_EQ(same(weights("clipped", {.sink_logit = {}, .clip_gamma = 0, .clip_zeta = 1}), weights("softmax")), 0);
  EXPECT_GT(same(weights("clipped", {.sink_logit = {}, .clip_gamma = -0.03, .clip_zeta = 1}), weights("softmax")), 1e-3);
  EXPECT_LT((weights("softmax").sum(-1) - 1).abs().max().item<double>(), 1e-6);
  EXPECT_LT((weights("sigmoid_norm").sum(-1) - 1).abs().max().item<double>(), 1e-6);
  const Tensor sigmoid = torch::sigmoid(logits.to(torch::kDouble)).tril();
  EXPECT_LT(same(weights("sigmoid_norm").to(torch::kDouble), sigmoid / sigmoid.sum(-1, true)), 1e-6);
  const Tensor e = torch::exp(logits.to(torch::kDouble)).tril(), plain = torch::relu(e - 1).tril() / (e - 1).tril().abs().sum(-1, true);
  EXPECT_LT(same(weights("softpick").to(torch::kDouble), plain), 1e-4);
}

TEST(Variants, AnOpenGateIsSoftmax) {
  for (const char* name : {"gate_head", "gate_elem"}) {
    LanguageModel gated = shaken(small(name)), plain = shaken(small("softmax"));
    const torch::NoGradGuard no_grad;
    for (const auto& p : plain->named_parameters()) p.value().copy_(gated->named_parameters()[p.key()]);
    for (Layer& layer : gated->layers) layer->attention->gate->weight.zero_(), layer->attention->gate->bias.fill_(100);
    const Tensor tokens = some_tokens().narrow(1, 0, kContext);
    EXPECT_EQ((gated(tokens) - plain(tokens)).abs().max().item<float>(), 0) << name;
  }
}

TEST(Variants, APrefixSeesItself) {
  constexpr int64_t kPrefix = 6;
  for (const char* attention : {"softmax", "sink_token", "kv_bias"}) {
    ModelConfig c = small(attention);
    c.prefix = kPrefix;
    LanguageModel model = shaken(c);
    for (int64_t k = 0; k < 10; ++k) {
      const Tensor moved = moved_by(model, some_tokens(1).narrow(1, 0, kContext), k);
      for (int64_t i = 0; i < kContext; ++i) EXPECT_EQ(moved[i].item<float>() > 0, i >= k || (i < kPrefix && k < kPrefix)) << attention << ": " << k << " seen by " << i;
    }
  }
}

TEST(Loss, OfAPrefixIsThePlainMeanOfWhatIsBehindIt) {
  const Tensor tokens = some_tokens(), logits = torch::randn({2, kContext, kVocab}, torch::kDouble), chance = torch::log_softmax(logits, -1);
  for (const int64_t prefix : {0, 1, 6}) {
    double sum = 0;
    const int64_t first = std::max<int64_t>(prefix, 1);  // nothing tells the first token
    for (int64_t row = 0; row < 2; ++row)
      for (int64_t i = first; i <= kContext; ++i) sum -= chance[row][i - 1][tokens[row][i]].item<double>();
    EXPECT_NEAR(next_token_loss(logits, tokens, static_cast<int>(prefix)).item<double>(), sum / static_cast<double>(2 * (kContext + 1 - first)), 1e-12);
  }
}

TEST(Loss, OfDiffusionIsThePlainSumOverMaskedTokens) {
  ModelConfig c = small("softmax");
  c.diffusion = true, c.tied = false;
  LanguageModel model = shaken(c, torch::kDouble);
  const Tensor tokens = torch::arange(3, 3 + kContext + 1).unsqueeze(0), text = tokens.narrow(1, 0, kContext), mask = torch::tensor(kVocab);
  constexpr int kDraws = 64;
  for (const double ratio : {0.3, 0.0}) {
    double mean_share = 0, mean_t = 0, least_t = 1, most_t = 0;
    for (int seed = 0; seed < kDraws; ++seed) {
      model->zero_grad();
      const Tensor loss = diffusion_loss(model, tokens, mask, ratio, seed);
      loss.backward();
      if (loss.item<double>() == 0) continue;  // no token is masked
      const Tensor masked = model->embedding->weight.grad().abs().sum(-1).index_select(0, text[0]) == 0;  // all tokens differ: those that the model did not see
      const Tensor chance = torch::log_softmax(model(torch::where(masked, mask, text))[0], -1);
      double sum = 0;
      for (int64_t i = 0; i < kContext; ++i)
        if (masked[i].item<bool>()) sum -= chance[i][text[0][i]].item<double>();
      const double t = sum / kContext / loss.item<double>();
      EXPECT_NEAR(t, ratio > 0 ? ratio : t, 1e-7);
      mean_share += masked.sum().item<double>() / kContext / kDraws, mean_t += t / kDraws;
      least_t = std::min(least_t, t), most_t = std::max(most_t, t);
    }
    EXPECT_NEAR(mean_share, mean_t, 0.03);
    EXPECT_TRUE(ratio > 0 || (0 < least_t && least_t < 0.1 && 0.9 < most_t && most_t <= 1)) << least_t << " to " << most_t;
  }
}

TEST(Model, ExpertsAreAPlainSumAndTheirBalanceIsSwitchs) {
  ModelConfig c = small("softmax");
  c.n_expert = 5, c.n_expert_used = 2, c.n_expert_shared = 1;
  LanguageModel model = shaken(c, torch::kDouble);
  Experts experts = model->layers[0]->experts;
  constexpr int64_t kTokens = 14;
  const Tensor x = torch::randn({2, kTokens / 2, c.d_model}, torch::kDouble), out = experts(x).view({kTokens, -1});
  std::vector<double> share(5), mean(5);  // of tokens that go to an expert, of its probability
  for (int64_t i = 0; i < kTokens; ++i) {
    const Tensor token = x.view({kTokens, -1})[i], p = torch::softmax(experts->router(token), -1), order = p.argsort(-1, true);
    const auto first = order[0].item<int64_t>(), second = order[1].item<int64_t>();
    const Tensor plain = experts->shared[0](token) + (p[first] * experts->experts[first](token) + p[second] * experts->experts[second](token)) / (p[first] + p[second]);
    EXPECT_LT((out[i] - plain).abs().max().item<double>(), 1e-12);
    for (const int64_t e : {first, second}) share[e] += 0.5 / kTokens;
    for (int64_t e = 0; e < 5; ++e) mean[e] += p[e].item<double>() / kTokens;
  }
  double balance = 0;
  for (int e = 0; e < 5; ++e) balance += 5 * share[e] * mean[e];
  EXPECT_GT(balance, 1.01);
  EXPECT_NEAR(experts->balance.item<double>(), balance, 1e-12);
  model(some_tokens());
  EXPECT_NEAR(model->balance().item<double>(), (experts->balance + model->layers[1]->experts->balance).item<double>() / 2, 1e-12);
  const torch::NoGradGuard no_grad;
  experts->router->weight.zero_();
  experts(x);
  EXPECT_NEAR(experts->balance.item<double>(), 1, 1e-12);
}

TEST(Model, ForgettingIsAWindow) {
  ModelConfig windowed = small("softmax");
  windowed.window = 5;
  torch::manual_seed(2);
  LanguageModel trained = shaken(windowed);
  torch::manual_seed(2);
  LanguageModel forgetful = shaken(small("softmax"));
  const Tensor tokens = some_tokens().narrow(1, 0, kContext);
  EXPECT_GT((trained(tokens) - forgetful(tokens)).abs().max().item<float>(), 0);
  forgetful->remains = {.last = 5};
  EXPECT_EQ((trained(tokens) - forgetful(tokens)).abs().max().item<float>(), 0);
  forgetful->remains.first = 2;
  const Tensor seen = forgetful->visible(kContext);
  EXPECT_EQ(seen[20].sum().item<int64_t>(), 7);
  EXPECT_TRUE(seen[20][1].item<bool>() && seen[20][16].item<bool>());
}

TEST(Telemetry, ShareIsTheFirstTokensPartOfWhatARowGives) {
  const Tensor tokens = some_tokens();
  for (const auto& [attention, window] : {std::pair("softmax", 0), {"softmax", 5}, {"sigmoid", 0}, {"sink_token", 0}, {"gate_head", 5}}) {
    SCOPED_TRACE(fmt::format("{}, window {}", attention, window));
    ModelConfig config = small(attention);
    config.window = window;
    LanguageModel model = shaken(config);
    const Measurement m = measure(model, tokens, torch::tensor(int64_t{0}));
    const int64_t n_row = window > 0 ? window : kContext;  // those that see the first token
    double expected = 0, value_ratio = 0;
    for (int64_t p = 0; p < tokens.size(0); ++p) {
      Trace trace;
      model(tokens.narrow(0, p, 1).narrow(1, 0, kContext), &trace);
      for (const Tensor& weights : trace.weights)
        for (int64_t i = 0; i < n_row; ++i) {
          const Tensor rows = weights[0].select(1, i);  // [n_head, n]
          expected += (rows.select(-1, 0) / rows.sum(-1)).mean().item<double>() / static_cast<double>(tokens.size(0) * n_row * static_cast<int64_t>(trace.weights.size()));
        }
      const Tensor lengths = trace.values[0][0].norm(2, -1);  // [n_head_kv, n]
      ASSERT_EQ(lengths.size(1), kContext);
      value_ratio += (lengths.select(1, 0) / std::get<0>(lengths.narrow(1, 1, kContext - 1).median(1))).mean().item<double>() / static_cast<double>(tokens.size(0));
    }
    EXPECT_NEAR(m.share.value(), expected, 1e-6);
    EXPECT_NEAR(m.value_ratio[0], value_ratio, 1e-5);
    const std::string name = attention;
    EXPECT_EQ(std::abs(m.share.value() - m.alpha) < 1e-6, name == "softmax" || name == "gate_head");  // rows that sum to 1
    EXPECT_EQ(m.gated_alpha < m.alpha - 1e-6, name == "gate_head");
    EXPECT_NEAR(from_json_line(to_json_line(m)).share.value(), expected, 1e-6);
    Measurement before = m;
    before.share.reset();
    EXPECT_EQ(from_json_line(to_json_line(before)).share.has_value(), name == "softmax" || name == "gate_head");
  }
}

TEST(Telemetry, OnsetIsWhereAlphaStaysAboveItsNull) {
  std::vector<Measurement> curve(6);
  const double alphas[] = {0.07, 0.2, 0.09, 0.12, 0.15, 0.3};
  for (size_t i = 0; i < 6; ++i) curve[i].alpha = alphas[i], curve[i].alpha_null = 0.07;
  EXPECT_EQ(onset(curve), 3);
  curve[5].alpha = 0.08;
  EXPECT_EQ(onset(curve), -1);
  EXPECT_EQ(measured_steps(1000, 4), (std::vector<int64_t>{0, 1, 10, 100, 1000}));
  EXPECT_EQ(to_json_line(from_json_line(to_json_line(curve[1]))), to_json_line(curve[1]));
}

}  // namespace
}  // namespace sinkscope::train
