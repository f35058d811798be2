// One attention operation by shape, type and instruction set, each checked against the reference in double before it is
// timed; beside it what the same run measures as the limits of the machine. GFLOP/s are those of the two products over
// the visible pairs, GB/s those of reading keys and values once; "share" is of the limit.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <cblas.h>
#include <fmt/format.h>

#include "attention/attend.h"
#include "attention/reference.h"
#include "attention/team.h"
#include "bench/fma_loop.h"
#include "measure/recorder.h"

namespace {

using namespace sinkscope;
using benchmark::Counter;

constexpr int kThreads = 2;

struct Type {
  const char* name;
  attention::Element element;
  size_t block_values, block_bytes;
};
constexpr Type kTypes[] = {{"f16", attention::Element::f16, 1, 2},
                           {"bf16", attention::Element::bf16, 1, 2},
                           {"q8_0", attention::Element::q8_0, 32, 34},
                           {"q4_0", attention::Element::q4_0, 32, 18}};

struct Shape {
  int d, n_head, n_head_kv, n_key, n_query;
};

constexpr bool is_decoding(const Shape& s) { return s.n_query == 1; }

struct Mode {
  const char* name;
  bool measures;
  bool cached;  // keys and values are in the last cache: what is left is arithmetic
};
constexpr Mode kModes[] = {{"plain", false, false}, {"measuring", true, false}, {"cached", false, true}};

// The last n_query of n_key positions, causal; keys and values as llama.cpp's cache has them: heads side by side. Decoding
// walks through as many layers as do not fit into the last cache, if it is not `cached`.
struct Operands {
  Operands(const Shape& s, const Type& type, bool cached) {
    std::mt19937 random(1);
    const size_t row = static_cast<size_t>(s.d) / type.block_values * type.block_bytes, cell = row * s.n_head_kv;
    q.resize(static_cast<size_t>(s.n_head) * s.n_query * s.d);
    out.resize(q.size());
    bytes_of_layer = cell * s.n_key;
    n_layer = is_decoding(s) && !cached ? static_cast<int>(kBeyondCache / bytes_of_layer) + 1 : 1;
    k.resize(bytes_of_layer * n_layer);
    v.resize(k.size());
    mask.resize(static_cast<size_t>(s.n_query) * s.n_key);
    for (float& x : q) x = static_cast<float>(random() % 2048) / 1024 - 1;
    for (std::vector<uint8_t>* rows : {&k, &v}) {
      for (size_t i = 0; i < bytes_of_layer; i += 2) {
        // As a half or a scale it is about 0.1 to 0.5, as bytes or nibbles it is anything.
        const bool head = i % type.block_bytes == 0;
        const auto half = static_cast<uint16_t>((type.element == attention::Element::bf16 ? 0x3E00 : 0x3000) + random() % 0x0080);
        const auto word = head || type.block_bytes == 2 ? half : static_cast<uint16_t>(random());
        (*rows)[i] = static_cast<uint8_t>(word);
        (*rows)[i + 1] = static_cast<uint8_t>(word >> 8);
      }
      for (int i = 1; i < n_layer; ++i) std::copy_n(rows->begin(), bytes_of_layer, rows->begin() + i * bytes_of_layer);
    }
    for (int i = 0; i < s.n_query; ++i)
      for (int j = 0; j < s.n_key; ++j) {
        const bool visible = j <= s.n_key - s.n_query + i;
        mask[static_cast<size_t>(i) * s.n_key + j] = visible ? 0 : 0xFC00;
        n_pair += visible;
      }
    call.n_query = s.n_query;
    call.n_key = s.n_key;
    call.n_head = s.n_head;
    call.n_head_kv = s.n_head_kv;
    call.d_key = call.d_value = s.d;
    call.q = q.data();
    call.q_query_stride = s.d;
    call.q_head_stride = static_cast<size_t>(s.n_query) * s.d;
    const auto rows = [&](const std::vector<uint8_t>& data) {
      return attention::Rows{reinterpret_cast<const std::byte*>(data.data()), cell, row, bytes_of_layer, type.element, nullptr};
    };
    call.k = rows(k);
    call.v = rows(v);
    call.mask = {mask.data(), static_cast<size_t>(s.n_key), mask.size(), mask.size(), 1, 1};
    call.scale = .1f / std::sqrt(static_cast<float>(s.d));
    call.out = out.data();
    bytes = 2.0 * static_cast<double>(bytes_of_layer);
    flop = static_cast<double>(n_pair) * s.n_head * 4 * s.d;
  }
  const attention::Call& layer(int i) {
    call.layer = i;
    call.k.data = reinterpret_cast<const std::byte*>(k.data()) + i * bytes_of_layer;
    call.v.data = reinterpret_cast<const std::byte*>(v.data()) + i * bytes_of_layer;
    return call;
  }

  static constexpr size_t kBeyondCache = 96 << 20;
  attention::Call call;
  int n_layer = 1;
  size_t bytes_of_layer = 0;
  std::vector<float> q, out;
  std::vector<uint8_t> k, v;
  std::vector<uint16_t> mask;
  int64_t n_pair = 0;
  double bytes = 0, flop = 0;
};

void check(const attention::Kernels& kernels, Shape s, const Type& type) {
  s.n_key = 300;
  s.n_query = std::min(s.n_query, 20);
  Operands o(s, type, /*cached=*/true);
  attention::Workspace work;
  attention::attend(o.call, {}, kernels, kThreads, work);
  const attention::Reference want = attention::reference(o.call);
  for (size_t i = 0; i < want.out.size(); ++i)
    if (!(std::abs(o.out[i] - want.out[i]) <= 1e-4 * (1 + std::abs(want.out[i])))) {
      fmt::print(stderr, "bench_kernels: {} {} d{} is wrong: {} for {}\n", kernels.name, type.name, s.d, o.out[i], want.out[i]);
      std::exit(1);
    }
}

// --- the machine's limits, measured once in this run

double best_rate(double amount, const auto& work) {
  double best = 0;
  for (int i = 0; i < 10; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    best = std::max(best, amount / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double sgemm_gflops(int d) {
  constexpr int kRows = 512, kColumns = 2048;
  std::vector<float> a(kRows * d, 1), b(kColumns * d, 1), c(kRows * kColumns);
  openblas_set_num_threads(kThreads);
  return 1e-9 * best_rate(2.0 * kRows * kColumns * d, [&] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, kRows, kColumns, d, 1, a.data(), d, b.data(), d, 0, c.data(), kColumns);
  });
}

double read_gbps() {
  std::vector<uint64_t> data(size_t{48} << 20, 1);
  std::vector<uint64_t> sums(64 * 8);
  return 1e-9 * best_rate(static_cast<double>(data.size()) * 8, [&] {
    attention::run_tasks(64, kThreads, [&](int task, int) {
      const size_t n = data.size() / 64;
      const uint64_t* from = data.data() + task * n;
      uint64_t sum[8] = {};
      for (size_t i = 0; i < n; i += 8)
        for (int j = 0; j < 8; ++j) sum[j] += from[i + j];
      for (int j = 0; j < 8; ++j) sums[task * 8 + j] = sum[j];
    });
    benchmark::DoNotOptimize(sums.data());
  });
}

struct Limits {
  double read = read_gbps();
  std::map<std::string, double> fma;  // GFLOP/s by instruction set
  double sgemm_64 = sgemm_gflops(64), sgemm_128 = sgemm_gflops(128), sgemm_256 = sgemm_gflops(256);
  double sgemm(int d) const { return d <= 64 ? sgemm_64 : d <= 128 ? sgemm_128 : sgemm_256; }

  Limits() {
    for (const attention::Kernels* kernels : attention::available_kernels()) {
      constexpr int kTurns = 1 << 20, kTasks = 64;
      if (const FmaLoop* loop = fma_loop(kernels->name))
        fma[kernels->name] = 1e-9 * best_rate(loop->flop_per_turn * kTurns * kTasks, [&] {
          attention::run_tasks(kTasks, kThreads, [&](int, int) { benchmark::DoNotOptimize(loop->run(kTurns)); });
        });
    }
  }
};
const Limits& limits() {
  static const Limits measured;
  return measured;
}

void attend(benchmark::State& state, const attention::Kernels& kernels, const Shape& s, const Type& type, const Mode& mode) {
  check(kernels, s, type);
  Operands o(s, type, mode.cached);
  measure::Recorder recorder(kernels, {.maps = {}, .all_first_mass = false});
  Probe* probes[] = {&recorder};
  attention::Workspace work;
  // As in a session, the recorder's arrays are made once; they have room for the rows of 1,024 steps or 4 batches.
  const int n_token = s.n_key + (is_decoding(s) ? 1024 : 0);
  int layer = 0, n_row = n_token;
  for (auto _ : state) {
    if (mode.measures && n_row + s.n_query > n_token) recorder.start(n_token), n_row = 0;
    attention::attend(o.layer(layer), std::span<Probe* const>(probes, mode.measures ? 1 : 0), kernels, kThreads, work);
    if (++layer == o.n_layer) layer = 0, n_row += s.n_query;
  }
  const auto rate = [&](const char* name, double amount) { state.counters[name] = Counter(amount, Counter::kIsIterationInvariantRate); };
  rate("GFLOP/s", o.flop * 1e-9);
  rate("share_of_fma", o.flop * 1e-9 / limits().fma.at(kernels.name));
  if (is_decoding(s)) {
    rate("GB/s", o.bytes * 1e-9);
    rate("share_of_read", o.bytes * 1e-9 / limits().read);
  } else {
    rate("share_of_sgemm", o.flop * 1e-9 / limits().sgemm(s.d));
  }
}

void add(const attention::Kernels* kernels, const char* what, const Shape& s, const Type& type) {
  for (const Mode& mode : kModes)
    if (is_decoding(s) || !mode.cached)
      benchmark::RegisterBenchmark(fmt::format("{}/{}/d{}/{}/{}", what, kernels->name, s.d, type.name, mode.name).c_str(),
                                   [=](benchmark::State& state) { attend(state, *kernels, s, type, mode); })
          ->UseRealTime()->Unit(benchmark::kMillisecond);
}

const bool registered = [] {
  for (const attention::Kernels* kernels : attention::available_kernels()) {
    for (const int d : {64, 128, 256}) add(kernels, "prefill", {d, 3, 1, 2048, 512}, kTypes[0]);
    // As wide as SmolLM2, Qwen2.5-Coder-1.5B and Gemma-3-270M.
    for (const Type& type : kTypes)
      for (const Shape& s : {Shape{64, 9, 3, 8192, 1}, {128, 12, 2, 8192, 1}, {256, 4, 1, 8192, 1}}) add(kernels, "decode", s, type);
  }
  return true;
}();

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  fmt::print("limits of this run, {} threads: OpenBLAS sgemm {:.0f}, {:.0f}, {:.0f} GFLOP/s with an inner size of 64, 128, 256 ({}); reading {:.1f} GB/s\n",
             kThreads, limits().sgemm_64, limits().sgemm_128, limits().sgemm_256, openblas_get_corename(), limits().read);
  for (const auto& [isa, gflops] : limits().fma) fmt::print("a loop of multiply-adds, {}: {:.0f} GFLOP/s\n", isa, gflops);
  benchmark::RunSpecifiedBenchmarks();
}
