// Each policy against a plain version of it that has the whole attention map before it.
#include "policy/policy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include "attention/attend.h"
#include "attention/reference.h"
#include "policy/protect.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

constexpr int kRow = 70, kHeadKv = 2, kHead = 6, kDim = 32;

// A layer after one batch of kRow tokens, and its whole map.
class Seen {
 public:
  explicit Seen(cache::Observe observe, int n_batch = 1) : memory_(attention::kernels("auto"), cache::Precision::f32) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal;
    const auto filled = [&](size_t n) {
      std::vector<float> values(n);
      for (float& v : values) v = normal(random);
      return values;
    };
    q_ = filled(static_cast<size_t>(kHead) * kRow * kDim);
    k_ = filled(static_cast<size_t>(kHeadKv) * kRow * kDim);
    v_ = filled(k_.size());
    for (int h = 0; h < kHeadKv; ++h)  // no two keys are as long as each other, and the first is a sink
      for (int row = 0; row < kRow; ++row)
        for (int i = 0; i < kDim; ++i) k_[(static_cast<size_t>(h) * kRow + row) * kDim + i] *= row == 0 ? .2f : 1 + static_cast<float>(row * 37 % 70) / 70;
    mask_.assign(static_cast<size_t>(kRow) * kRow, 0);
    for (int i = 0; i < kRow; ++i) std::fill(mask_.begin() + i * kRow + i + 1, mask_.begin() + (i + 1) * kRow, 0xFC00);
    weights = attention::reference(call(0, kRow)).weights;

    cache::Observer observer(attention::kernels("auto"), observe);
    attention::Workspace work;
    layer_ = &memory_.layer(0, kHeadKv, kDim, kDim);
    for (int b = 0; b < n_batch; ++b) {
      const int first = kRow * b / n_batch, end = kRow * (b + 1) / n_batch;
      Probe* probes[] = {&observer};
      if (observe.any()) attention::attend(call(first, end), probes, attention::kernels("auto"), 2, work);
      for (int h = 0; h < kHeadKv; ++h)
        for (int row = first; row < end; ++row) layer_->heads[h].append(row, key(h, row), v_.data() + (static_cast<size_t>(h) * kRow + row) * kDim);
      if (observe.any()) observer.add_to(*layer_);
    }
  }

  const float* key(int head_kv, int row) const { return k_.data() + (static_cast<size_t>(head_kv) * kRow + row) * kDim; }
  // Attention of the queries [first, kRow) to a row, mean over the query heads of a KV head.
  double mass(int head_kv, int row, int first) const {
    double sum = 0;
    constexpr int kGroup = kHead / kHeadKv;
    for (int h = head_kv * kGroup; h < (head_kv + 1) * kGroup; ++h)
      for (int i = first; i < kRow; ++i) sum += weights[(static_cast<size_t>(h) * kRow + i) * kRow + row];
    return sum / kGroup;
  }
  Kept kept(const char* policy, const Options& options, int n_new = 1, int index = 0, int n_layer = 1) const {
    const auto made = make(policy, options);
    made->note(*layer_, index);
    return made->keep({.layer = *layer_, .memory = memory_, .index = index, .n_layer = n_layer, .n_new = n_new});
  }
  const float* value(int head_kv, int row) const { return v_.data() + (static_cast<size_t>(head_kv) * kRow + row) * kDim; }
  const float* query(int head, int row) const { return q_.data() + (static_cast<size_t>(head) * kRow + row) * kDim; }
  // The queries as if they had been rotated by their row's number.
  void observe_queries(const cache::Rotation& rotation) {
    layer_->queries.emplace(kHead, kDim, .2f, rotation);
    for (int h = 0; h < kHead; ++h)
      for (int row = 0; row < kRow; ++row) layer_->queries->add(h, row, query(h, row));
    memory_.end_batch(kRow);
  }

  std::vector<double> weights;

 private:
  attention::Call call(int first, int end) {
    attention::Call c;
    c.layer = 0;
    c.n_query = end - first;
    c.n_key = end;
    c.n_head = kHead;
    c.n_head_kv = kHeadKv;
    c.d_key = c.d_value = kDim;
    c.q = q_.data() + static_cast<size_t>(first) * kDim;
    c.q_query_stride = kDim;
    c.q_head_stride = kRow * kDim;
    c.k = {reinterpret_cast<const std::byte*>(k_.data()), kDim * 4, kRow * kDim * 4, 0, attention::Element::f32, nullptr};
    c.v = {reinterpret_cast<const std::byte*>(v_.data()), kDim * 4, kRow * kDim * 4, 0, attention::Element::f32, nullptr};
    c.mask = {mask_.data() + static_cast<size_t>(first) * kRow, kRow, 0, 0, 1, 1};
    c.scale = .2f;
    out_.resize(static_cast<size_t>(kHead) * kRow * kDim);
    c.out = out_.data();
    return c;
  }

  cache::Memory memory_;
  cache::Layer* layer_ = nullptr;
  std::vector<float> q_, k_, v_, out_;
  std::vector<uint16_t> mask_;
};

// The rows that a plain sort leaves: those that must stay, then by score, later ones first.
std::vector<bool> plainly(const std::vector<double>& scores, const std::vector<bool>& must, int most) {
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    if (must[a] != must[b]) return bool{must[a]};
    if (must[a] || scores[a] == scores[b]) return a > b;
    return scores[a] > scores[b];
  });
  std::vector<bool> kept(scores.size());
  for (int i = 0; i < std::min(most, static_cast<int>(order.size())); ++i) kept[order[i]] = true;
  return kept;
}

std::vector<bool> last(int n, std::vector<int> others = {}) {
  std::vector<bool> must(kRow);
  for (int i = kRow - n; i < kRow; ++i) must[i] = true;
  for (const int i : others) must[i] = true;
  return must;
}

std::vector<double> snap_scores(const Seen& seen, int head, int window) {
  std::vector<double> scores(kRow);
  for (int row = 0; row < kRow; ++row) {
    int n = 0;
    for (int i = std::max(0, row - 2); i <= std::min(kRow - 1, row + 2); ++i, ++n) scores[row] += seen.mass(head, i, kRow - window);
    scores[row] /= n;
  }
  return scores;
}

TEST(Policy, WindowAndStreaming) {
  const Seen seen({});
  EXPECT_EQ(seen.kept("full", {})[0], std::vector<bool>(kRow, true));
  EXPECT_EQ(seen.kept("window", {.budget = 20}, 5)[1], last(15));
  EXPECT_EQ(seen.kept("streaming", {.budget = 20, .sinks = 4}, 5)[1], last(11, {0, 1, 2, 3}));
  EXPECT_EQ(seen.kept("streaming", {.budget = 20, .sinks = 0, .protect = {3, 40}}, 5)[0], last(13, {3, 40}));
  EXPECT_EQ(seen.kept("streaming", {.budget = 200, .sinks = 4}, 5)[0], std::vector<bool>(kRow, true));
}

TEST(Policy, H2oKeepsHeavyHittersAndTheLastHalf) {
  for (const int n_batch : {1, 7}) {
    const Seen seen({.n_last = 0, .all = true}, n_batch);
    for (int h = 0; h < kHeadKv; ++h) {
      std::vector<double> scores(kRow);
      for (int row = 0; row < kRow; ++row) scores[row] = seen.mass(h, row, 0);
      EXPECT_EQ(seen.kept("h2o", {.budget = 30}, 2)[h], plainly(scores, last(13), 28));
    }
  }
}

TEST(Policy, TovaKeepsWhatTheNewestQueryLooksAt) {
  for (const int n_batch : {1, 70}) {
    const Seen seen({.n_last = 1, .all = false}, n_batch);
    std::vector<double> scores(kRow);
    for (int row = 0; row < kRow; ++row) scores[row] = seen.mass(0, row, kRow - 1) + seen.mass(1, row, kRow - 1);
    const Kept kept = seen.kept("tova", {.budget = 30});
    EXPECT_EQ(kept[0], plainly(scores, last(0), 29));
    EXPECT_EQ(kept[1], kept[0]);
    EXPECT_EQ(seen.kept("tova", {.budget = 30, .protect = {5}})[0], plainly(scores, last(0, {5}), 29));
  }
}

TEST(Policy, SnapKvAndPyramidKvKeepWhatTheLastWindowLooksAt) {
  for (const int n_batch : {1, 7, 70}) {
    const Seen seen({.n_last = 10, .all = false}, n_batch);
    for (int h = 0; h < kHeadKv; ++h) {
      const std::vector<double> scores = snap_scores(seen, h, 10);
      EXPECT_EQ(seen.kept("snapkv", {.budget = 30, .window = 10}, 3)[h], plainly(scores, last(10), 27));
      // 20 rows beside the window: from 39 in the first layer down to 1 in the last.
      EXPECT_EQ(seen.kept("pyramidkv", {.budget = 30, .window = 10}, 0, 0, 5)[h], plainly(scores, last(10), 49));
      EXPECT_EQ(seen.kept("pyramidkv", {.budget = 30, .window = 10}, 0, 4, 5)[h], plainly(scores, last(10), 11));
      EXPECT_EQ(seen.kept("pyramidkv", {.budget = 30, .window = 10}, 0, 2, 5)[h], plainly(scores, last(10), 30));
    }
  }
}

TEST(Policy, AdaKvLetsHeadsCompete) {
  const Seen seen({.n_last = 10, .all = false});
  const int share = 29;
  std::vector<std::pair<double, int>> rivals;  // beyond the window, which every head keeps
  for (int h = 0; h < kHeadKv; ++h) {
    const std::vector<double> scores = snap_scores(seen, h, 10);
    for (int row = 0; row < kRow - 10; ++row) rivals.push_back({scores[row], h});
  }
  std::sort(rivals.rbegin(), rivals.rend());
  int wins[kHeadKv] = {};
  for (int i = 0; i < kHeadKv * share - kHeadKv * 10; ++i) ++wins[rivals[i].second];
  const Kept kept = seen.kept("adakv", {.budget = 30, .window = 10});
  EXPECT_NE(wins[0], wins[1]);
  for (int h = 0; h < kHeadKv; ++h) EXPECT_EQ(kept[h], plainly(snap_scores(seen, h, 10), last(10), 10 + wins[h]));
}

TEST(Policy, ExpectedForeseesQueriesLikeThoseBefore) {
  Seen seen({});
  const cache::Rotation rotation{{0, 1}, {2, 3}, {.37, .011}};
  seen.observe_queries(rotation);
  for (int h = 0; h < kHeadKv; ++h) {
    std::vector<double> scores(kRow);
    for (int head = h * kHead / kHeadKv; head < (h + 1) * kHead / kHeadKv; ++head) {
      // Queries turned back, and the mean of the rotations to come as a whole matrix.
      std::vector<std::vector<double>> q(kRow, std::vector<double>(kDim)), turn(kDim, std::vector<double>(kDim));
      for (int row = 0; row < kRow; ++row) {
        std::vector<float> back(seen.query(head, row), seen.query(head, row) + kDim);
        rotation.turn(-row, back.data());
        q[row].assign(back.begin(), back.end());
      }
      for (int i = 0; i < kDim; ++i) turn[i][i] = i < 4 ? 0 : 1;
      for (int p = 0; p < 2; ++p)
        for (int position = kRow; position < kRow + 512; ++position) {
          const double c = std::cos(rotation.angle[p] * position) / 512, s = std::sin(rotation.angle[p] * position) / 512;
          turn[p][p] += c, turn[p + 2][p + 2] += c, turn[p][p + 2] -= s, turn[p + 2][p] += s;
        }
      std::vector<double> mean(kDim), weight(kRow);
      for (const auto& one : q)
        for (int i = 0; i < kDim; ++i) mean[i] += one[i] / kRow;
      double sum = 0;
      for (int row = 0; row < kRow; ++row) {
        // k turned by the transposed mean rotation meets the queries as they are.
        std::vector<double> k(kDim);
        for (int i = 0; i < kDim; ++i)
          for (int j = 0; j < kDim; ++j) k[i] += turn[j][i] * seen.key(h, row)[j];
        const double linear = std::inner_product(k.begin(), k.end(), mean.begin(), 0.0);
        double variance = 0;
        for (const auto& one : q) variance += std::pow(std::inner_product(k.begin(), k.end(), one.begin(), 0.0) - linear, 2) / kRow;
        sum += weight[row] = std::exp(.2 * linear + .2 * .2 * variance / 2);
      }
      for (int row = 0; row < kRow; ++row)
        scores[row] += weight[row] / sum * std::sqrt(std::inner_product(seen.value(h, row), seen.value(h, row) + kDim, seen.value(h, row), 0.0));
    }
    EXPECT_EQ(seen.kept("expected", {.budget = 30})[h], plainly(scores, last(0), 29));
    EXPECT_EQ(seen.kept("expected", {.budget = 30, .protect = {2}})[h], plainly(scores, last(0, {2}), 29));
  }
}

TEST(Policy, CriticalKvWeighsWhatAValueDoesToTheOutput) {
  constexpr int kOut = 50;
  Projection projection{std::vector<float>(static_cast<size_t>(kOut) * kHead * kDim), kHead * kDim};
  for (size_t i = 0; i < projection.weights.size(); ++i) projection.weights[i] = std::sin(static_cast<float>(i * i % 977));
  const Seen seen({.n_last = 10, .all = false});
  for (int h = 0; h < kHeadKv; ++h) {
    std::vector<double> scores = snap_scores(seen, h, 10);
    for (int row = 0; row < kRow; ++row) {
      double norm = 0;
      for (int out = 0; out < kOut; ++out)
        for (int head = h * kHead / kHeadKv; head < (h + 1) * kHead / kHeadKv; ++head)
          norm += std::abs(std::inner_product(seen.value(h, row), seen.value(h, row) + kDim, projection.weights.begin() + (out * kHead + head) * kDim, 0.0));
      scores[row] *= norm;
    }
    const Options options{.budget = 30, .output_projection = [&](int) { return projection; }, .window = 10};
    EXPECT_EQ(seen.kept("criticalkv", options, 3)[h], plainly(scores, last(10), 27));
  }
}

// Two KV heads of which the second needs four times as much, or looks far back.
std::shared_ptr<SinkMap> some_map() {
  return std::make_shared<SinkMap>(SinkMap{.positions = {5}, .n_token = 1000, .windows = {50, 100},
                                           .heads = {{0, 0, {}, {.001 * .019, .001 * .009}, .1}, {0, 1, {}, {.016 * .019, .016 * .009}, .6}}, .n_head = 2});
}

TEST(Policy, SinkMapGivesRowsToHeadsThatNeedThem) {
  const Seen seen({});
  // 32 rows: 9 each (a batch of 1, a sink, a quarter of the budget must be; here 10), the others 1 to 4 as the square roots of the needs are.
  const Kept kept = seen.kept("sinkmap", {.budget = 32, .map = some_map()});
  const int least = 1 + 1 + 32 / 4, left = 2 * (32 - least);
  EXPECT_EQ(kept[0], last(least + left / 5 - 2, {5}));
  EXPECT_EQ(kept[1], last(least + left * 4 / 5 - 2, {5}));
  EXPECT_THROW(make("sinkmap", {.budget = 32}), UsageError);
  EXPECT_THROW(make("duo", {.budget = 32, .map = std::make_shared<SinkMap>()}), UsageError);
}

TEST(Policy, DuoKeepsAllThatItCanOfHeadsThatLookFarBack) {
  const Seen seen({});
  // The streaming head has half of the mean: 16 rows, of which one comes and a fifth of the others are the first ones.
  const Kept kept = seen.kept("duo", {.budget = 32, .map = some_map()});
  EXPECT_EQ(kept[0], last(12, {0, 1, 2}));
  EXPECT_EQ(kept[1], last(44, {0, 1, 2}));
}

TEST(Policy, ProtectedRowsWinOverTheLastOnes) {
  const Seen seen({.n_last = 10, .all = true});
  const std::vector<int32_t> protect = first_positions(8);
  const std::vector<int> rows(protect.begin(), protect.end());
  // The last layer has 11 rows, of which 2 come.
  for (const std::vector<bool>& kept : seen.kept("pyramidkv", {.budget = 30, .n_batch = 2, .protect = protect, .window = 10}, 2, 4, 5)) EXPECT_EQ(kept, last(1, rows));
  // Half of the budget is for the last rows, more than the protected ones leave.
  for (const std::vector<bool>& kept : seen.kept("h2o", {.budget = 14, .n_batch = 1, .protect = protect})) EXPECT_EQ(kept, last(5, rows));
}

TEST(Policy, AnyBudgetCanBeDivided) {
  const Seen seen({.n_last = 10, .all = false});
  for (const char* policy : {"duo", "sinkmap", "adakv", "pyramidkv", "snapkv"})
    for (const auto& kept : seen.kept(policy, {.budget = 2'000'000'000, .map = some_map(), .window = 10})) EXPECT_EQ(kept, std::vector<bool>(kRow, true)) << policy;
}

TEST(Policy, ABudgetHoldsWhatIsProtectedInEveryHead) {
  const auto refused = [](const char* policy, int budget, int n_batch, int n_protect, std::shared_ptr<SinkMap> map = nullptr) {
    EXPECT_THROW(make(policy, {.budget = budget, .n_batch = n_batch, .protect = first_positions(n_protect), .map = map}), UsageError) << policy;
    EXPECT_NO_THROW(make(policy, {.budget = budget, .n_batch = n_batch, .protect = first_positions(1), .map = map})) << policy;
  };
  refused("snapkv", 66, 32, 4);
  refused("adakv", 70, 32, 10);
  refused("h2o", 64, 16, 48);
  refused("pyramidkv", 256, 32, 11);
  refused("streaming", 64, 32, 32);
  refused("duo", 96, 32, 40, some_map());
  const auto map = some_map();
  map->positions = first_positions(70);
  EXPECT_THROW(make("sinkmap", {.budget = 96, .n_batch = 32, .map = map}), UsageError);
  EXPECT_NO_THROW(make("window", {.budget = 64, .n_batch = 32, .protect = first_positions(40)}));  // it protects none
}

TEST(Policy, KNormAndKeyDiffLookAtKeysAlone) {
  const Seen seen({});
  for (int h = 0; h < kHeadKv; ++h) {
    std::vector<double> shortness(kRow), difference(kRow), mean(kDim);
    const auto norm = [&](int row) {
      return std::sqrt(std::inner_product(seen.key(h, row), seen.key(h, row) + kDim, seen.key(h, row), 0.0));
    };
    for (int row = 0; row < kRow; ++row)
      for (int i = 0; i < kDim; ++i) mean[i] += seen.key(h, row)[i] / norm(row) / kRow;
    for (int row = 0; row < kRow; ++row) {
      shortness[row] = -norm(row);
      for (int i = 0; i < kDim; ++i) difference[row] -= mean[i] * seen.key(h, row)[i] / norm(row);
    }
    EXPECT_EQ(seen.kept("knorm", {.budget = 30})[h], plainly(shortness, last(0), 29));
    EXPECT_EQ(seen.kept("keydiff", {.budget = 30, .protect = {0, 1}})[h], plainly(difference, last(0, {0, 1}), 29));
  }
}

TEST(Policy, NamesAndRowsAreChecked) {
  EXPECT_THROW(make("fifo", {}), UsageError);
  for (const Kind& k : kinds()) {
    if (k.needs_budget) {
      EXPECT_THROW(make(k.name, {}), UsageError) << k.name;
    }
  }
  EXPECT_THROW(make("snapkv", {.budget = 32}), UsageError);
  EXPECT_EQ(protected_positions("first:3", "f16", {}), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_TRUE(protected_positions("none", "q4c", {}).empty());
  EXPECT_TRUE(protected_positions("auto", "f16", {}).empty());
  EXPECT_EQ(protected_positions("auto", "q4c", {}), (std::vector<int32_t>{0, 1, 2, 3}));
  for (const char* wrong : {"", "first", "first:", "first:-1", "first:2x", "first:99999999999", "last:3"}) EXPECT_THROW(protected_positions(wrong, "f16", {}), UsageError) << wrong;
  EXPECT_THROW(protected_positions("sinkmap:/nowhere", "f16", {}), InputError);
}

}  // namespace
}  // namespace sinkscope::policy
