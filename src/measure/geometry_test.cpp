#include "measure/geometry.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "attention/attend.h"

namespace sinkscope::measure {
namespace {

constexpr int kToken = 150, kHead = 4, kHeadKv = 2, kDim = 16, kSink = 3, kWindow = 90;
constexpr float kEpsilon = 0.3f;
constexpr int kMinRows = 4;
constexpr uint16_t kMinusInfinity = 0xFC00;  // in F16

double dot(const float* a, const float* b) {
  double sum = 0;
  for (int i = 0; i < kDim; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// Random rows; key kSink meets the queries of heads 0 and 1.
struct Rows {
  Rows() {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (std::vector<float>* rows : {&q, &k, &v})
      for (float& x : *rows) x = normal(random);
    for (int i = 0; i < kToken; ++i)
      for (int h = 0; h < 2; ++h) query_row(h, i)[0] = 6;
    for (int d = 0; d < kDim; ++d) key_row(0, kSink)[d] = d == 0 ? 5.0f : 0.0f;
  }
  float* query_row(int head, int i) { return q.data() + (static_cast<size_t>(head) * kToken + i) * kDim; }
  float* key_row(int head_kv, int i) { return k.data() + (static_cast<size_t>(head_kv) * kToken + i) * kDim; }
  float* value(int head_kv, int i) { return v.data() + (static_cast<size_t>(head_kv) * kToken + i) * kDim; }
  static bool sees(int query, int key) { return key <= query && query - key < kWindow; }

  std::vector<float> q = std::vector<float>(kHead * kToken * kDim), k = std::vector<float>(kHeadKv * kToken * kDim), v = k;
};

struct Measured {
  std::vector<HeadGeometry> heads;
  std::vector<std::vector<int>> sinks;
};

Measured measured(Rows& rows, const std::vector<int>& batches, const backend::Rope& rope) {
  Geometry geometry(2);
  Recorder recorder(attention::kernels("generic"));
  geometry.start(kToken);
  recorder.start(kToken);
  Probe* probes[] = {&recorder, &geometry};
  attention::Workspace work;
  int first = 0;
  for (const int n : batches) {
    std::vector<uint16_t> mask;
    for (int i = 0; i < n; ++i)
      for (int k = 0; k < first + n; ++k) mask.push_back(rows.sees(first + i, k) ? 0 : kMinusInfinity);
    std::vector<float> out(static_cast<size_t>(n) * kHead * kDim);
    attention::Call call;
    call.layer = 0;
    call.first_key = first;
    call.n_query = n;
    call.n_key = first + n;
    call.n_head = kHead;
    call.n_head_kv = kHeadKv;
    call.d_key = call.d_value = kDim;
    call.q = rows.query_row(0, first);
    call.q_query_stride = kDim;
    call.q_head_stride = static_cast<size_t>(kToken) * kDim;
    call.k = {reinterpret_cast<const std::byte*>(rows.k.data()), kDim * 4, kToken * kDim * 4, 0, attention::Element::f32, nullptr};
    call.v = {reinterpret_cast<const std::byte*>(rows.v.data()), kDim * 4, kToken * kDim * 4, 0, attention::Element::f32, nullptr};
    call.mask = {mask.data(), static_cast<size_t>(call.n_key), mask.size(), mask.size(), 1, 1};
    call.scale = 0.25f;
    call.out = out.data();
    attention::attend(call, probes, attention::kernels("generic"), 2, work);
    geometry.after(call, rope, attention::kernels("generic"));
    first += n;
  }
  geometry.finish(recorder, kEpsilon, kMinRows);
  Measured m;
  for (int h = 0; h < kHead; ++h) {
    m.heads.push_back(geometry.layers()[0].heads[h].mean());
    m.sinks.push_back(recorder.layers()[0].sinks(h, kToken, kEpsilon, kMinRows));
  }
  return m;
}

// Pair by pair, as docs/metrics.md says it.
HeadGeometry plain(Rows& rows, int head, std::vector<int> sinks, const backend::Rope& rope) {
  if (sinks.empty()) sinks = {0};
  const int kv = head / (kHead / kHeadKv);
  HeadGeometry g;
  const auto unrotated = [&](const float* row, int position) {
    std::vector<float> copy(row, row + kDim);
    rope.turn(-position, copy.data());
    return copy;
  };
  for (int i = 0; i < kToken; ++i) {
    const float* q = rows.query_row(head, i);
    const double length = std::sqrt(dot(q, q));
    double sum = 0, all = 0, of_sinks = 0;
    for (int k = 0; k <= i; ++k)
      if (rows.sees(i, k)) sum += std::exp(0.25 * dot(q, rows.key_row(kv, k)));
    for (int k = 0; k <= i; ++k) {
      if (!rows.sees(i, k)) continue;
      const bool is_sink = std::ranges::find(sinks, k) != sinks.end();
      HeadGeometry::Keys& keys = is_sink ? g.sinks : g.others;
      const float* key = rows.key_row(kv, k);
      const double norm = std::sqrt(dot(key, key));
      ++keys.n_pair;
      keys.norm += norm;
      keys.logit += 0.25 * dot(q, key);
      keys.cos += dot(q, key) / norm / length;
      keys.cos_unrotated += dot(unrotated(q, i).data(), unrotated(key, k).data()) / norm / length;
      const double share = std::exp(0.25 * dot(q, key)) / sum * std::sqrt(dot(rows.value(kv, k), rows.value(kv, k)));
      all += share;
      if (is_sink) of_sinks += share;
    }
    g.output += all;
    g.sink_output += of_sinks;
    g.query_norm += length;
    g.null_mass += 1 / (1 + sum);
    ++g.n_query;
  }
  return g.mean();
}

void expect_same(const HeadGeometry& got, const HeadGeometry& want) {
  const auto near = [](double a, double b) { EXPECT_NEAR(a, b, 2e-5 * (1 + std::abs(b))); };
  for (const auto keys : {&HeadGeometry::sinks, &HeadGeometry::others}) {
    EXPECT_EQ((got.*keys).n_pair, (want.*keys).n_pair);
    for (const auto field : {&HeadGeometry::Keys::norm, &HeadGeometry::Keys::cos, &HeadGeometry::Keys::cos_unrotated, &HeadGeometry::Keys::logit}) near(got.*keys.*field, want.*keys.*field);
  }
  near(got.query_norm, want.query_norm);
  near(got.null_mass, want.null_mass);
  near(got.output_share(), want.output_share());
}

TEST(Geometry, IsWhatThePlainSumOverPairsSaysInAnyBatches) {
  Rows rows;
  backend::Rope rope;
  for (int i = 0; i < kDim / 2; ++i) rope.first.push_back(i), rope.second.push_back(i + kDim / 2), rope.angle.push_back(std::pow(100.0, -i));
  for (const std::vector<int>& batches : {std::vector<int>{kToken}, {100, 50}, std::vector<int>(kToken, 1)}) {
    SCOPED_TRACE(batches.size());
    const Measured m = measured(rows, batches, rope);
    EXPECT_EQ(m.sinks[0], std::vector({kSink}));
    EXPECT_EQ(m.sinks[2], std::vector<int>());
    for (int h = 0; h < kHead; ++h) {
      SCOPED_TRACE(h);
      expect_same(m.heads[h], plain(rows, h, m.sinks[h], rope));
    }
  }
}

}  // namespace
}  // namespace sinkscope::measure
