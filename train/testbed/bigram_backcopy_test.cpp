#include "testbed/bigram_backcopy.h"

#include <cmath>

#include <gtest/gtest.h>

#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

TEST(BigramBackcopy, BehindATriggerTheTokenBeforeComesAgain) {
  const BackcopyOptions o{.vocabulary = 20, .context = 200};
  const BackcopyTask task(o);
  EXPECT_EQ(task.triggers().sum().item<int64_t>(), o.triggers);
  const torch::Tensor tokens = task.batch(50, 3);
  const auto at = tokens.accessor<int64_t, 2>();
  int n_trigger = 0;
  for (int64_t p = 0; p < tokens.size(0); ++p) {
    EXPECT_EQ(at[p][0], BackcopyTask::kBos);
    EXPECT_FALSE(task.is_trigger(at[p][1]));
    for (int64_t i = 1; i < o.context; ++i) {
      EXPECT_TRUE(at[p][i] > 0 && at[p][i] < o.vocabulary);  // BOS never comes again
      if (!task.is_trigger(at[p][i])) continue;
      EXPECT_EQ(at[p][i + 1], at[p][i - 1]);
      ++n_trigger;
    }
  }
  EXPECT_GT(n_trigger, 50 * o.context / 20 * o.triggers / 2);  // they are the most frequent ones
  EXPECT_TRUE(torch::equal(tokens, task.batch(50, 3)));
  EXPECT_FALSE(torch::equal(tokens, task.batch(50, 4)));
}

TEST(BigramBackcopy, SoftmaxGrowsASinkWhereThereIsNoTriggerReluAndAGateDoNot) {
  BackcopyOptions o{.context = 64, .width = 64, .batch = 32, .steps = 400, .rate = 3e-3};
  for (const char* attention : {"softmax", "gate_head", "relu"}) {
    SCOPED_TRACE(attention);
    o.attention = attention;
    const auto curve = run_bigram_backcopy(o, 2);
    const BackcopyMeasurement &first = curve.front(), &last = curve.back();
    EXPECT_LT(last.copy_loss, 0.2 * first.copy_loss);      // the head copies
    EXPECT_LT(last.bigram_loss, 0.2 * first.bigram_loss);  // and the chain is learned
    EXPECT_GT(last.trigger_copy, 0.5);
    EXPECT_NEAR(first.sink / first.mass, first.sink_null, 0.2 * first.sink_null);
    if (o.attention == "softmax") {
      EXPECT_GT(last.sink, 2 * last.sink_null);
      EXPECT_LT(last.trigger_sink, last.sink_null);  // it is there only where the head is dormant: behind triggers, less than uniform attention
      EXPECT_LT(last.value_ratio, 0.8);
    } else if (o.attention == "gate_head") {
      EXPECT_LT(last.sink, 1.5 * last.sink_null);  // the gate closes instead
    } else {
      EXPECT_LT(last.sink, 0.1 * last.sink_null);
      EXPECT_LT(last.mass, 0.1);                           // a dormant row is empty
      EXPECT_GT(last.value_ratio, 0.8);
    }
  }
}

TEST(BigramBackcopy, RefusesWhatCannotBe) {
  EXPECT_THROW(run_bigram_backcopy({.triggers = 0}, 2), UsageError);
  EXPECT_THROW(run_bigram_backcopy({.width = 7}, 2), UsageError);
  EXPECT_THROW(run_bigram_backcopy({.rate = 0}, 2), UsageError);
}

}  // namespace
}  // namespace sinkscope::train
