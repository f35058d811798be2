#include "measure/recorder.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <new>
#include <random>

#include <gtest/gtest.h>

#include "attention/attend.h"

namespace sinkscope::measure {
namespace {

constexpr uint16_t kHidden = 0xFC00;  // minus infinity

// Attention of random queries and keys, batch by batch, one key for each position; what sees(query, key) hides is masked.
void attend_all(int n_token, int batch, int n_head, const std::function<bool(int, int)>& sees, int n_thread, Recorder& recorder) {
  constexpr int kDim = 32;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> all_q(static_cast<size_t>(n_head) * n_token * kDim), kv(static_cast<size_t>(n_token) * kDim);
  for (float& x : all_q) x = normal(random);
  for (float& x : kv) x = normal(random);
  recorder.start(n_token);
  Probe* probes[] = {&recorder};
  attention::Workspace work;
  for (int first = 0; first < n_token; first += batch) {
    const int n_query = std::min(batch, n_token - first);
    std::vector<uint16_t> mask(static_cast<size_t>(n_query) * n_token);
    for (int i = 0; i < n_query; ++i)
      for (int k = 0; k < n_token; ++k) mask[static_cast<size_t>(i) * n_token + k] = sees(first + i, k) ? 0 : kHidden;
    std::vector<float> out(static_cast<size_t>(n_head) * n_query * kDim);
    attention::Call call;
    call.layer = 0;
    call.first_key = first;
    call.n_query = n_query;
    call.n_key = n_token;
    call.n_head = n_head;
    call.n_head_kv = 1;
    call.d_key = call.d_value = kDim;
    call.q = all_q.data() + static_cast<size_t>(first) * kDim;
    call.q_query_stride = kDim;
    call.q_head_stride = static_cast<size_t>(n_token) * kDim;
    call.k = call.v = {reinterpret_cast<const std::byte*>(kv.data()), kDim * 4, kDim * 4, 0, attention::Element::f32, nullptr};
    call.mask = {mask.data(), static_cast<size_t>(n_token), mask.size(), mask.size(), 1, 1};
    call.scale = .3f;
    call.out = out.data();
    attention::attend(call, probes, attention::kernels("auto"), n_thread, work);
  }
}

struct Mask {
  const char* name;
  bool (*sees)(int query, int key);
};
constexpr Mask kMasks[] = {{"causal", [](int q, int k) { return k <= q; }}, {"window", [](int q, int k) { return k <= q && k > q - 37; }}, {"both ways", [](int, int) { return true; }}};

TEST(Bands, EveryPositionIsInTheBandThatBeginsAtOrBeforeIt) {
  for (const int n_position : {1, 5, 32, 33, 100, 2048, 5000})
    for (int n = 1; n <= std::min(n_position, 32); ++n) {
      const Bands bands{n, n_position};
      EXPECT_EQ(bands.begin(n), n_position);
      for (int p = 0; p < n_position; ++p) {
        const int band = bands.of(p);
        ASSERT_EQ(band, p * n / n_position);
        ASSERT_TRUE(bands.begin(band) <= p && p < bands.begin(band + 1)) << p << " of " << n_position << " in " << n << " bands";
      }
    }
}

TEST(Recorder, BandedSumsAndPairsAreThoseOfWholeMaps) {
  constexpr int kHead = 3;
  for (const Mask& mask : kMasks)
    for (const auto& [n_token, n_position, batch] : {std::tuple(300, 300, 300), {300, 400, 128}, {90, 90, 1}, {20, 20, 20}}) {
      const Bands bands{.n = std::min(16, n_position), .n_position = n_position};
      Recorder recorder(attention::kernels("auto"), {.maps = {{0, 0}, {0, 1}, {0, 2}}, .bands = bands});
      attend_all(n_token, batch, kHead, mask.sees, 2, recorder);
      const LayerRecord& layer = recorder.layers()[0];
      std::vector<double> n_pair(bands.n * bands.n), want_pair(n_pair.size());
      layer.add_band_pairs(bands, n_pair);
      for (int h = 0; h < kHead; ++h) {
        std::vector<double> want(n_pair.size());
        want_pair.assign(n_pair.size(), 0);
        for (int q = 0; q < n_token; ++q)
          for (int k = 0; k < n_token; ++k) {
            const size_t at = static_cast<size_t>(q * bands.n / n_position) * bands.n + static_cast<size_t>(k * bands.n / n_position);
            want[at] += recorder.map({0, h})[static_cast<size_t>(q) * n_token + k];
            want_pair[at] += mask.sees(q, k);
          }
        double all = 0;
        for (size_t i = 0; i < want.size(); ++i) {
          ASSERT_NEAR(layer.band_sum[h * want.size() + i], want[i], 1e-4) << mask.name << ", " << n_token << " tokens, head " << h << ", band " << i;
          all += layer.band_sum[h * want.size() + i];
        }
        EXPECT_NEAR(all, n_token, 1e-2);
      }
      EXPECT_EQ(n_pair, want_pair) << mask.name << ", " << n_token << " tokens";
    }
}

TEST(Recorder, BandedSumsHaveTheSameBitsForAnyNumberOfThreads) {
  std::vector<float> one;
  for (const int n_thread : {1, 2, 3}) {
    Recorder recorder(attention::kernels("auto"), {.bands = {.n = 32, .n_position = 1000}});
    attend_all(1000, 512, 4, kMasks[0].sees, n_thread, recorder);
    if (one.empty()) one = recorder.layers()[0].band_sum;
    EXPECT_EQ(recorder.layers()[0].band_sum, one) << n_thread << " threads";
  }
}

}  // namespace
}  // namespace sinkscope::measure

// Every allocation of the program is counted; sanitizers bring allocators of their own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace {
std::atomic<int64_t> n_allocation{0};
}
void* operator new(size_t n) {
  ++n_allocation;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace sinkscope::measure {
namespace {

TEST(Recorder, AStepTakesNoMemoryOnceItsSizesWereSeen) {
  constexpr int kDim = 32, kHead = 4, kKey = 300;
  for (const int n_query : {1, 40}) {
    std::vector<float> q(kHead * n_query * kDim, .1f), kv(kKey * kDim, .2f), out(q.size());
    std::vector<uint16_t> mask(static_cast<size_t>(n_query) * kKey, 0);
    attention::Call call;
    call.layer = 0;
    call.n_query = n_query;
    call.n_key = kKey;
    call.n_head = kHead;
    call.n_head_kv = 1;
    call.d_key = call.d_value = kDim;
    call.q = q.data();
    call.q_query_stride = kDim;
    call.q_head_stride = static_cast<size_t>(n_query) * kDim;
    call.k = call.v = {reinterpret_cast<const std::byte*>(kv.data()), kDim * 4, kDim * 4, 0, attention::Element::f32, nullptr};
    call.mask = {mask.data(), kKey, mask.size(), mask.size(), 1, 1};
    call.out = out.data();
    Recorder recorder(attention::kernels("auto"), {.bands = {.n = 8, .n_position = 3 * n_query + kKey}});
    recorder.start(3 * n_query + kKey);
    Probe* probes[] = {&recorder};
    attention::Workspace work;
    const auto step = [&] { attention::attend(call, probes, attention::kernels("auto"), 2, work); };
    step();
    step();  // which thread takes which task may differ: twice
    const int64_t before = n_allocation;
    step();
    EXPECT_EQ(n_allocation, before) << n_query << " queries";
  }
}

}  // namespace
}  // namespace sinkscope::measure
#endif
