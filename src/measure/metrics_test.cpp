#include "measure/metrics.h"

#include <cmath>

#include <gtest/gtest.h>

#include "attention/attend.h"
#include "measure/onset.h"

namespace sinkscope::measure {
namespace {

// One layer whose attention is chosen: queries and values do not matter, the logits come in by the mask.
// weight(head, i, k) of row i over keys 0..i is normalised here.
class Made {
 public:
  template <class Weight>
  Made(int n_head, int n_token, int window, const Weight& weight, int layer = 0, bool sigmoid = false) {
    const size_t n = n_token;
    std::vector<float> zeros(n * n_head, 0), out(n * n_head);
    std::vector<uint16_t> mask(n * n * n_head, 0xFC00);
    for (int h = 0; h < n_head; ++h)
      for (int i = 0; i < n_token; ++i)
        for (int k = std::max(0, i - window + 1); k <= i; ++k) mask[(h * n + i) * n + k] = half(std::log(weight(h, i, k)));
    attention::Call call;
    call.layer = layer;
    call.n_query = call.n_key = n_token;
    call.n_head = call.n_head_kv = n_head;
    call.d_key = call.d_value = 1;
    call.q = zeros.data();
    call.q_query_stride = 1;
    call.q_head_stride = n;
    call.k = call.v = {reinterpret_cast<const std::byte*>(zeros.data()), 4, 4 * n, 4 * n * n_head, attention::Element::f32, nullptr};
    call.mask = {mask.data(), n, n * n, n * n * n_head, n_head, 1};
    call.sigmoid = sigmoid;
    call.out = out.data();
    recorder.start(n_token);
    Probe* probes[] = {&recorder};
    attention::attend(call, probes, attention::kernels("auto"), 2, work_);
  }
  Recorder recorder{attention::kernels("auto")};

 private:
  static uint16_t half(double v) {  // powers of two have exact logarithms only to 11 bits: good to 1e-3
    const int sign = v < 0, exponent = v == 0 ? -15 : static_cast<int>(std::floor(std::log2(std::abs(v))));
    if (v == 0) return 0;
    return static_cast<uint16_t>(sign << 15 | (exponent + 15) << 10 | static_cast<int>((std::abs(v) / std::exp2(exponent) - 1) * 1024 + .5));
  }
  attention::Workspace work_;
};

std::vector<int> tokens(int n) {
  std::vector<int> t(n);
  for (int i = 0; i < n; ++i) t[i] = 100 + i;
  return t;
}

double harmonic(int n) { return n == 0 ? 0 : harmonic(n - 1) + 1.0 / n; }

TEST(Tally, UniformAttentionIsItsOwnNull) {
  const int n = 64;
  Made made(2, n, n, [](int, int, int) { return 1.0; });
  Tally tally(.05f, 16);
  tally.add(made.recorder, tokens(n));
  const SinkRate rate = tally.sink_rate(1);
  EXPECT_NEAR(rate.alpha_by_position[0], harmonic(n) / n, 1e-6);  // 0.0741 at T = 64
  EXPECT_NEAR(rate.uniform_alpha_by_position[0], 0.0741, 1e-4);
  EXPECT_EQ(rate.first, 100);  // 0.0741 > 0.05: and the null says so
  EXPECT_EQ(rate.null, 100);
  for (int k = 0; k < n; ++k) EXPECT_NEAR(rate.alpha_by_position[k], rate.uniform_alpha_by_position[k], 1e-6);
  EXPECT_FALSE(rate.first_ci95.has_value());
  const FirstShare first = tally.first_share(1);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(first.boost[i], 1, 1e-5);
}

TEST(Tally, ASinkHeadAndAPlainHead) {
  const int n = 64;
  // Head 0: half of each row on the first key, the rest even. Head 1: even.
  Made made(2, n, n, [](int h, int i, int k) { return h == 0 && k == 0 && i > 0 ? i : 1.0; });
  Tally tally(.3f, 16);
  tally.add(made.recorder, tokens(n));
  const SinkRate rate = tally.sink_rate(1);
  EXPECT_EQ(rate.first, 50);
  EXPECT_EQ(rate.null, 0);
  const LayerProfile layer = tally.layers().at(0);
  EXPECT_NEAR(layer.heads[0].alpha_first, (1 + .5 * 63) / 64, 1e-3);
  EXPECT_EQ(layer.heads[0].sink_rate_first, 100);
  EXPECT_EQ(layer.heads[1].sink_rate_first, 0);
  EXPECT_NEAR(layer.heads[0].first_share, (1 + .5 * 63) / 64, 1e-3);
  EXPECT_NEAR(layer.heads[0].strongest_is_first, 100, 1e-6);
  EXPECT_GT(layer.heads[1].entropy, layer.heads[0].entropy);
  double entropy = 0;
  for (int i = 1; i <= n; ++i) entropy += std::log(i) / n;
  EXPECT_NEAR(layer.heads[1].entropy, entropy, 1e-5);
  const std::vector<Sink> sinks = tally.sinks(1);
  ASSERT_EQ(sinks.size(), 1u);
  EXPECT_EQ(sinks[0].position, 0);
  EXPECT_EQ(sinks[0].token, 100);
  ASSERT_EQ(sinks[0].heads.size(), 1u);
  EXPECT_EQ(sinks[0].heads[0].head, 0);
  EXPECT_TRUE(tally.sink_tokens().empty());  // the first position says nothing of its token
}

TEST(Tally, ATokenThatSinksWhereverItStands) {
  const int n = 64;
  std::vector<int> text = tokens(n);
  for (const int k : {5, 12, 20, 31}) text[k] = 7;
  // Each row looks at the newest token 7 before it.
  Made made(1, n, n, [&](int, int i, int k) {
    int newest = 0;
    for (int j = 0; j <= i; ++j)
      if (text[j] == 7) newest = j;
    return k == newest ? 1000.0 : 1.0;
  });
  Tally tally(.1f, 16);
  tally.add(made.recorder, text);
  const std::vector<SinkToken> found = tally.sink_tokens();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].token, 7);
  EXPECT_EQ(found[0].n, 4);
  EXPECT_EQ(found[0].sink_rate, 100);
}

TEST(Tally, PositionsThatFewRowsSeeAreNoSinks) {
  const int n = 32;
  Made made(1, n, n, [](int, int i, int k) { return i == k ? 1000.0 : 1.0; });  // each token looks at itself
  Tally tally(.3f, 16);
  tally.add(made.recorder, tokens(n));
  EXPECT_GT(tally.sink_rate(1).by_position[31], 99);  // one row, all of it
  for (const Sink& s : tally.sinks(1)) EXPECT_LE(s.position, 32 - 16);
}

TEST(Tally, AWindowDividesByTheRowsThatSeeTheKey) {
  const int n = 40, window = 5;
  Made made(1, n, window, [](int, int, int) { return 1.0; });
  const LayerRecord& layer = made.recorder.layers()[0];
  EXPECT_EQ(layer.key_n_row(0, 0, n), 5u);
  EXPECT_EQ(layer.key_n_row(0, 39, n), 1u);
  Tally tally(.3f, 2);
  tally.add(made.recorder, tokens(n));
  const SinkRate rate = tally.sink_rate(1);
  EXPECT_NEAR(rate.alpha_by_position[0], (1 + .5 + 1.0 / 3 + .25 + .2) / 5, 1e-6);
  EXPECT_NEAR(rate.alpha_by_position[20], .2, 1e-6);
  EXPECT_NEAR(tally.first_share(1).share[0], (1 + .5 + 1.0 / 3 + .25 + .2) / 40, 1e-6);
  EXPECT_NEAR(tally.first_share(1).boost[0], 1, 1e-5);
}

TEST(Tally, PromptsOfDifferentLengthsCountWhereTheyReach) {
  Tally tally(.3f, 1);
  const auto to_first = [](int, int, int k) { return k == 0 ? 1000.0 : 1.0; };
  const auto even = [](int, int, int) { return 1.0; };
  Made shorter(1, 20, 20, even), longer(1, 40, 40, to_first);
  tally.add(shorter.recorder, tokens(20));
  tally.add(longer.recorder, tokens(40));
  const SinkRate rate = tally.sink_rate(1);
  ASSERT_EQ(rate.by_position.size(), 40u);
  EXPECT_EQ(rate.first, 50);
  ASSERT_TRUE(rate.first_ci95.has_value());
  EXPECT_EQ(rate.first_ci95->low, 0);
  EXPECT_EQ(rate.first_ci95->high, 100);
  double to_first_share = 0;  // 1000 to 1 against i other keys
  for (int i = 0; i < 40; ++i) to_first_share += 1000.0 / (1000 + i) / 40;
  EXPECT_NEAR(rate.share_by_position[0], (harmonic(20) / 20 + to_first_share) / 2, 1e-3);
}

TEST(Tally, ARateThatUniformAttentionReachesIsNoSink) {
  Made made(1, 20, 20, [](int, int, int) { return 1.0; });
  Tally tally(.05f, 1);
  tally.add(made.recorder, tokens(20));
  const SinkRate rate = tally.sink_rate(1);
  EXPECT_EQ(rate.first, 100);
  EXPECT_FALSE(says_something(rate, 0));
  EXPECT_TRUE(tally.sinks(1).empty());
  EXPECT_NEAR(rate.sum_by_position[0], harmonic(20), 1e-4);
  EXPECT_EQ(tally.first_share(1).last_rows, 20);
  EXPECT_FALSE(tally.learned_sink().has_value());
}

TEST(Tally, IntervalsComeWithTheSecondPrompt) {
  Made sink(1, 40, 40, [](int, int, int k) { return k == 0 ? 1000 : 1.0; }), even(1, 40, 40, [](int, int, int) { return 1.0; });
  Tally tally(.3f, 16);
  tally.add(sink.recorder, tokens(40));
  EXPECT_TRUE(tally.first_share(1).share_ci95.empty());
  EXPECT_FALSE(tally.strongest_is_first_ci95(1).has_value());
  tally.add(even.recorder, tokens(40));
  const FirstShare first = tally.first_share(1);
  ASSERT_EQ(first.share_ci95.size(), 3u);
  EXPECT_LT(first.share_ci95[0].low, first.share[0]);
  EXPECT_GT(first.share_ci95[0].high, first.share[0]);
  ASSERT_EQ(tally.sinks(1).size(), 1u);
  EXPECT_EQ(tally.sinks(1)[0].sink_rate_ci95->low, 0);
  EXPECT_EQ(tally.sinks(1)[0].sink_rate_ci95->high, 100);
  EXPECT_NEAR(tally.strongest_is_first(), 100, 1e-6);  // of equal weights the first counts
}

TEST(Tally, MassIsWhatRowsSumTo) {
  const auto even = [](int, int, int) { return 1.0; };
  Made softmax(2, 20, 20, even), sigmoid(2, 20, 20, even, 0, /*sigmoid=*/true);  // sigmoid(ln 1) = 1/2 on each of 1 to 20 keys
  Tally ones(.3f, 16), halves(.3f, 16);
  for (int i = 0; i < 2; ++i) ones.add(softmax.recorder, tokens(20)), halves.add(sigmoid.recorder, tokens(20));
  EXPECT_NEAR(ones.mass(), 1, 1e-6);
  EXPECT_NEAR(halves.mass(), 10.5 / 2, 1e-5);
  EXPECT_NEAR(halves.sink_rate(1).alpha_by_position[0], .5, 1e-6);
  EXPECT_NEAR(halves.layers()[0].heads[0].entropy, [] {
    double sum = 0;
    for (int i = 1; i <= 20; ++i) sum += std::log(i) / 20;
    return sum;
  }(), 1e-5);  // of equal shares
}

TEST(Onset, IsWhereAlphaStaysAboveItsStartAndItsNull) {
  const std::vector<double> uniform(6, .07);
  EXPECT_EQ(onset(std::vector{.07, .2, .09, .12, .15, .3}, uniform), 3);
  EXPECT_EQ(onset(std::vector{.07, .2, .09, .12, .15, .08}, uniform), -1);
  EXPECT_EQ(onset(std::vector{.2, .2, .2, .29, .31, .4}, uniform), 4);  // against the start
  EXPECT_EQ(onset(std::vector{.01, .1, .1, .1, .2, .2}, uniform), 4);   // against uniform attention
  EXPECT_EQ(onset(std::vector{.5}, std::vector{.07}), -1);
}

TEST(Bootstrap, NarrowsWithTheSpreadAndIsRepeatable) {
  const std::vector<float> wide = {0, 100, 0, 100, 0, 100, 0, 100}, narrow = {49, 51, 49, 51, 49, 51, 49, 51};
  const auto a = bootstrap_ci95(wide, 1), b = bootstrap_ci95(narrow, 1);
  EXPECT_NEAR(a->low + a->high, 100, 15);
  EXPECT_GT(a->high - a->low, 40);
  EXPECT_LT(b->high - b->low, 2);
  EXPECT_EQ(a->low, bootstrap_ci95(wide, 1)->low);
}

}  // namespace
}  // namespace sinkscope::measure
