// Each policy against a plain version of it that has the whole attention map before it.
#include "policy/policy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <utility>

#include <gtest/gtest.h>

#include "attention/attend.h"
#include "attention/reference.h"
#include "backend/owned.h"
#include "policy/protect.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

constexpr int kRow = 70, kHeadKv = 2, kHead = 6, kGroup = kHead / kHeadKv, kDim = 32;
constexpr float kScale = .2f;

std::vector<float> filled(std::mt19937& random, size_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

std::vector<uint16_t> causal(int n) {
  std::vector<uint16_t> mask(static_cast<size_t>(n) * n);
  for (int i = 0; i < n; ++i) std::fill(mask.begin() + i * n + i + 1, mask.begin() + (i + 1) * n, 0xFC00);
  return mask;
}

// Attention on heads that have room for `stride` rows each.
attention::Call call_on(const float* q, const float* k, const float* v, int stride, std::vector<float>& out) {
  attention::Call c;
  c.layer = 0;
  c.n_head = kHead;
  c.n_head_kv = kHeadKv;
  c.d_key = c.d_value = kDim;
  c.q = q;
  c.q_query_stride = kDim;
  c.q_head_stride = static_cast<size_t>(stride) * kDim;
  const auto rows = [&](const float* data) {
    return attention::Rows{.data = reinterpret_cast<const std::byte*>(data), .key_stride = kDim * sizeof(float), .head_stride = c.q_head_stride * sizeof(float)};
  };
  c.k = rows(k);
  c.v = rows(v);
  c.scale = kScale;
  out.resize(static_cast<size_t>(kHead) * stride * kDim);
  c.out = out.data();
  return c;
}

// A layer after one batch of kRow tokens, and its whole map.
class Seen {
 public:
  explicit Seen(cache::Observe observe, int n_batch = 1) : memory_(attention::kernels("auto"), cache::Precision::f32) {
    std::mt19937 random(11);
    q_ = filled(random, static_cast<size_t>(kHead) * kRow * kDim);
    k_ = filled(random, static_cast<size_t>(kHeadKv) * kRow * kDim);
    v_ = filled(random, k_.size());
    for (int h = 0; h < kHeadKv; ++h)  // no two keys are as long as each other, and the first is a sink
      for (int row = 0; row < kRow; ++row)
        for (int i = 0; i < kDim; ++i) k_[(static_cast<size_t>(h) * kRow + row) * kDim + i] *= row == 0 ? .2f : 1 + static_cast<float>(row * 37 % 70) / 70;
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
    layer_->queries.emplace(kHead, kDim, kScale, rotation);
    for (int h = 0; h < kHead; ++h)
      for (int row = 0; row < kRow; ++row) layer_->queries->add(h, row, query(h, row));
    memory_.end_batch(kRow);
  }

  std::vector<double> weights;

 private:
  attention::Call call(int first, int end) {
    attention::Call c = call_on(q_.data() + static_cast<size_t>(first) * kDim, k_.data(), v_.data(), kRow, out_);
    c.n_query = end - first;
    c.n_key = end;
    c.mask = {mask_.data() + static_cast<size_t>(first) * kRow, kRow, 0, 0, 1, 1};
    return c;
  }

  cache::Memory memory_;
  cache::Layer* layer_ = nullptr;
  std::vector<float> q_, k_, v_, out_;
  std::vector<uint16_t> mask_ = causal(kRow);
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

std::vector<double> mean_of_five(const std::vector<double>& scores) {
  const int n_row = static_cast<int>(scores.size());
  std::vector<double> means(n_row);
  for (int row = 0; row < n_row; ++row) {
    int n = 0;
    for (int i = std::max(0, row - 2); i <= std::min(n_row - 1, row + 2); ++i, ++n) means[row] += scores[i];
    means[row] /= n;
  }
  return means;
}

std::vector<double> snap_scores(const Seen& seen, int head, int window) {
  std::vector<double> scores(kRow);
  for (int row = 0; row < kRow; ++row) scores[row] = seen.mass(head, row, kRow - window);
  return mean_of_five(scores);
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

// --- Through many evictions: what is remembered of rows has to go along with them.

constexpr int kBatches[] = {8, 8, 8, 8, 8, 8, 8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 8, 2, 8, 8, 5, 8};
constexpr int kMost = std::ranges::max(kBatches), kToken = std::accumulate(std::begin(kBatches), std::end(kBatches), 0), kOut = 20;

std::vector<double> softmax(std::vector<double> logits) {
  double sum = 0;
  for (double& x : logits) sum += x = std::exp(x);
  for (double& x : logits) x /= sum;
  return logits;
}

// A layer's text in batches, and what is kept of it: positions, beside the whole map of attention, which no eviction touches.
class PlainLayer {
 public:
  struct Rule {
    std::string_view policy;
    std::vector<double> (PlainLayer::*scores)(int h, int window) const;
    int budget, window = 0, n_first = 0;  // rows; the last and the first ones stay
  };

  explicit PlainLayer(int seed) {
    std::mt19937 random(seed);
    q_ = filled(random, static_cast<size_t>(kHead) * kToken * kDim);
    k_ = filled(random, static_cast<size_t>(kHeadKv) * kToken * kDim);
    v_ = filled(random, k_.size());
    projection = {filled(random, static_cast<size_t>(kOut) * kHead * kDim), kHead * kDim};
    // The second KV head has a sink, which leaves next to nothing to others.
    for (int i = 0; i < kGroup * kToken; ++i) q_[(static_cast<size_t>(kGroup) * kToken + i) * kDim] = 3;
    k_[static_cast<size_t>(kToken) * kDim] = 15;
  }

  // Of the next n tokens.
  attention::Call call(int n) {
    attention::Call c = call_on(at(q_, 0, ends_.back()), at(k_, 0, ends_.back()), at(v_, 0, ends_.back()), kToken, out_);
    c.n_query = c.n_key = n;
    c.mask = {mask_.data(), kMost, 0, 0, 1, 1};
    return c;
  }

  // Their queries over what is kept and, one after the other, themselves.
  void see(int n) {
    for (int h = 0; h < kHeadKv; ++h)
      for (int i = ends_.back(); i < ends_.back() + n; ++i) {
        positions[h].push_back(i);
        for (int head = h * kGroup; head < (h + 1) * kGroup; ++head) {
          const std::vector<double> weights = softmax(each(h, [&](int p) { return kScale * dot(at(q_, head, i), at(k_, h, p)); }));
          for (size_t r = 0; r < weights.size(); ++r) map_[h][i][positions[h][r]] += weights[r] / kGroup;
        }
      }
    ends_.push_back(ends_.back() + n);
  }

  // Before they come, in the first layer or the second of two.
  void make_room(const Rule& rule, bool is_first, int n) {
    const int n_last = rule.policy == "h2o" ? std::max(0, rule.budget / 2 - n) : rule.window;
    const double beside = rule.budget - rule.window, least = beside / 20;  // of pyramidkv
    const int share = (rule.policy == "pyramidkv" ? rule.window + static_cast<int>(is_first ? 2 * beside - least : least) : rule.budget) - n;
    std::vector<double> scores[kHeadKv], offers[kHeadKv];
    for (int h = 0; h < kHeadKv; ++h) {
      scores[h] = (this->*rule.scores)(h, rule.window);
      std::fill(scores[h].end() - std::min(scores[h].size(), static_cast<size_t>(n_last)), scores[h].end(), INFINITY);
      for (size_t r = 0; r < scores[h].size() && positions[h][r] < rule.n_first; ++r) scores[h][r] = INFINITY;
      offers[h] = scores[h];
      std::ranges::sort(offers[h], std::greater());
      offers[h].resize(offers[h].size() + 2 * kToken, -1);
    }
    int most[kHeadKv] = {share, share};
    if (rule.policy == "adakv") {  // a fifth of the even share, or the window; then row by row to the head that offers more
      most[0] = most[1] = std::max(share / 5, std::min(share, rule.window));
      while (most[0] + most[1] < 2 * share) ++most[offers[0][most[0]] > offers[1][most[1]] ? 0 : 1];
    }
    for (int h = 0; h < kHeadKv; ++h) {
      const std::vector<bool> kept = plainly(scores[h], std::vector<bool>(scores[h].size()), most[h]);
      for (size_t r = 0; const int p : std::exchange(positions[h], {}))
        if (kept[r++]) positions[h].push_back(p);
    }
  }

  std::vector<double> recent(int h, int) const { return each(h, [](int p) { return p; }); }
  std::vector<double> all_attention(int h, int) const { return each(h, [&](int p) { return mass(h, p, 0); }); }
  std::vector<double> newest_attention(int, int) const { return each(0, [&](int p) { return mass(0, p, ends_.back() - 1) + mass(1, p, ends_.back() - 1); }); }
  // Of the last queries: whole batches, of which small ones count together.
  std::vector<double> snap(int h, int window) const {
    std::vector<int> begins;
    for (size_t i = 1; i < ends_.size(); ++i)
      if (begins.empty() || ends_[i] - begins.back() > window / 4) begins.push_back(std::max(ends_[i - 1], ends_[i] - window));
    while (begins.size() > 1 && ends_.back() - begins.back() < window) begins.pop_back();
    return mean_of_five(each(h, [&](int p) { return mass(h, p, begins.back()); }));
  }
  std::vector<double> critical(int h, int window) const {
    std::vector<double> scores = snap(h, window);
    for (size_t r = 0; r < scores.size(); ++r) {
      double sum = 0;
      for (int i = 0; i < kOut; ++i)
        for (int head = h * kGroup; head < (h + 1) * kGroup; ++head) sum += std::abs(dot(at(v_, h, positions[h][r]), projection.weights.data() + (i * kHead + head) * kDim));
      scores[r] *= sum;
    }
    return scores;
  }
  std::vector<double> foreseen(int h, int) const {
    std::vector<double> scores(positions[h].size());
    for (int head = h * kGroup; head < (h + 1) * kGroup; ++head) {
      const std::vector<double> weights = softmax(each(h, [&](int p) {
        double mean = 0, square = 0;
        for (int i = 0; i < ends_.back(); ++i) {
          const double logit = kScale * dot(at(q_, head, i), at(k_, h, p));
          mean += logit / ends_.back(), square += logit * logit / ends_.back();
        }
        return mean + (square - mean * mean) / 2;
      }));
      for (size_t r = 0; r < scores.size(); ++r) scores[r] += weights[r] * norm(v_, h, positions[h][r]);
    }
    return scores;
  }
  std::vector<double> shortness(int h, int) const { return each(h, [&](int p) { return -norm(k_, h, p); }); }
  std::vector<double> difference(int h, int) const {
    return each(h, [&](int p) {
      double sum = 0;
      for (const int other : positions[h]) sum -= dot(at(k_, h, p), at(k_, h, other)) / norm(k_, h, p) / norm(k_, h, other);
      return sum;
    });
  }

  std::vector<int32_t> positions[kHeadKv];
  Projection projection;

 private:
  static const float* at(const std::vector<float>& rows, int head, int token) { return rows.data() + (static_cast<size_t>(head) * kToken + token) * kDim; }
  static double dot(const float* a, const float* b) { return std::inner_product(a, a + kDim, b, 0.0); }
  static double norm(const std::vector<float>& rows, int head, int token) { return std::sqrt(dot(at(rows, head, token), at(rows, head, token))); }
  template <class Score>
  std::vector<double> each(int h, const Score& score) const {
    std::vector<double> scores;
    for (const int p : positions[h]) scores.push_back(score(p));
    return scores;
  }
  double mass(int h, int position, int first_query) const {
    double sum = 0;
    for (int i = first_query; i < ends_.back(); ++i) sum += map_[h][i][position];
    return sum;
  }

  std::vector<float> q_, k_, v_, out_;  // [n_head or n_head_kv, n_token, d]
  std::vector<uint16_t> mask_ = causal(kMost);
  std::vector<int> ends_ = {0};         // of batches
  double map_[kHeadKv][kToken][kToken] = {};  // of query and key, mean over the query heads
};

class PolicyTest : public testing::TestWithParam<PlainLayer::Rule> {};

TEST_P(PolicyTest, KeepsWhatAPlainVersionKeepsThroughManyEvictions) {
  const PlainLayer::Rule rule = GetParam();
  std::vector<PlainLayer> plain = {PlainLayer(20), PlainLayer(21)};
  const auto policy = make(std::string(rule.policy), {.budget = rule.budget, .n_batch = kMost, .sinks = rule.n_first, .output_projection = [&](int l) { return plain[l].projection; }, .window = rule.window});
  const attention::Kernels& kernels = attention::kernels("auto");
  backend::OwnedMemory owned(cache::Memory(kernels, cache::Precision::f32), backend::Positions::gaps, {}, kernels, policy->observe());
  attention::Workspace work;
  const ggml_tensor node{};  // its queries were not rotated
  int n_eviction = 0;
  for (const int n : kBatches) {
    for (int l = 0; cache::Layer& layer : owned.memory().layers()) {
      policy->note(layer, l);
      const Kept kept = policy->keep({.layer = layer, .memory = owned.memory(), .index = l, .n_layer = 2, .n_new = n});
      plain[l].make_room(rule, l == 0, n);
      for (int h = 0; h < kHeadKv; ++h) {
        n_eviction += std::ranges::count(kept[h], false) > 0;
        layer.heads[h].keep(kept[h]);
        ASSERT_EQ(layer.heads[h].positions(), plain[l].positions[h]) << "layer " << l << ", head " << h << ", eviction " << n_eviction;
      }
      ++l;
    }
    owned.memory().start_batch();
    for (int l = 0; l < 2; ++l) {
      attention::Call call = plain[l].call(n);
      call.layer = l;
      owned.attend(&node, call, {}, kernels, 1, work, attention::Way::best);
      plain[l].see(n);
    }
    owned.memory().end_batch(n);
  }
  EXPECT_GE(n_eviction, 10 * 2 * kHeadKv);
}

// The head with the sink wins few rows: beside a window of one, it has what the floor of adakv gives it.
constexpr PlainLayer::Rule kRules[] = {{"window", &PlainLayer::recent, 24}, {"streaming", &PlainLayer::recent, 24, 0, 4}, {"h2o", &PlainLayer::all_attention, 24},
                                       {"tova", &PlainLayer::newest_attention, 24}, {"snapkv", &PlainLayer::snap, 24, 12}, {"pyramidkv", &PlainLayer::snap, 24, 12},
                                       {"adakv", &PlainLayer::snap, 24, 10}, {"adakv", &PlainLayer::snap, 40, 1}, {"criticalkv", &PlainLayer::critical, 24, 10},
                                       {"expected", &PlainLayer::foreseen, 24}, {"knorm", &PlainLayer::shortness, 24}, {"keydiff", &PlainLayer::difference, 24}};
INSTANTIATE_TEST_SUITE_P(Rules, PolicyTest, testing::ValuesIn(kRules),
                         [](const auto& p) { return std::string(p.param.policy) + '_' + std::to_string(p.param.budget); });

}  // namespace
}  // namespace sinkscope::policy
