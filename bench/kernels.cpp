// One attention operation by shape and instruction set, with and without statistics: GFLOP/s of its two products.
#include <random>
#include <vector>

#include <benchmark/benchmark.h>

#include "attention/attend.h"
#include "measure/recorder.h"

namespace {

using namespace sinkscope;

// The last n_query of n_key positions, causal, F16 keys and values of one KV head for three query heads.
void attend(benchmark::State& state, const attention::Kernels& kernels, int d, int n_key, int n_query, bool measuring) {
  constexpr int kHead = 3;
  std::mt19937 random(1);
  std::vector<float> q(static_cast<size_t>(kHead) * n_query * d), out(q.size());
  std::vector<uint16_t> kv(static_cast<size_t>(n_key) * d), mask(static_cast<size_t>(n_query) * n_key);
  for (float& x : q) x = static_cast<float>(random() % 2048) / 1024 - 1;
  for (uint16_t& x : kv) x = static_cast<uint16_t>(0x3000 + random() % 0x0800);  // about 0.1 to 0.5
  double n_pair = 0;
  for (int i = 0; i < n_query; ++i)
    for (int k = 0; k < n_key; ++k) {
      const bool visible = k <= n_key - n_query + i;
      mask[static_cast<size_t>(i) * n_key + k] = visible ? 0 : 0xFC00;
      n_pair += visible;
    }
  attention::Call call;
  call.layer = 0;
  call.n_query = n_query;
  call.n_key = n_key;
  call.n_head = kHead;
  call.n_head_kv = 1;
  call.d_key = call.d_value = d;
  call.q = q.data();
  call.q_query_stride = d;
  call.q_head_stride = static_cast<size_t>(n_query) * d;
  const size_t row = 2 * static_cast<size_t>(d);
  call.k = call.v = {reinterpret_cast<const std::byte*>(kv.data()), row, row * n_key, row * n_key, attention::Element::f16, nullptr};
  call.mask = {mask.data(), static_cast<size_t>(n_key), mask.size(), mask.size(), 1, 1};
  call.scale = .1f;
  call.out = out.data();

  measure::Recorder recorder(kernels);
  Probe* probes[] = {&recorder};
  attention::Workspace work;
  for (auto _ : state) {
    recorder.start(n_key);
    attention::attend(call, std::span<Probe* const>(probes, measuring ? 1 : 0), kernels, 2, work);
  }
  state.counters["GFLOP/s"] = benchmark::Counter(n_pair * kHead * 4 * d * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

const bool registered = [] {
  for (const attention::Kernels* kernels : attention::available_kernels())
    for (const int d : {64, 128, 256})
      for (const bool measuring : {false, true})
        benchmark::RegisterBenchmark(
            (std::string(kernels->name) + "/d" + std::to_string(d) + (measuring ? "/measuring" : "/plain")).c_str(),
            [=](benchmark::State& state) { attend(state, *kernels, d, 2048, 512, measuring); })
            ->UseRealTime()->Unit(benchmark::kMillisecond);
  return true;
}();

}  // namespace
