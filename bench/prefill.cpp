// Time and peak memory of a prefill: llama.cpp alone against sinkscope measuring.
//   bench_prefill MODEL [N_TOKEN [N_ROUND]]
// Each run is a process of its own; a round runs every way once, so that a machine that drifts drifts for all.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>
#include <vector>

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attention/kernels.h"
#include "measure/recorder.h"
#include "sinkscope/session.h"

namespace {

using namespace sinkscope;

struct Way {
  const char* name;
  Attention attention;
  bool blas, measuring;
};
constexpr Way kWays[] = {
    {"llama.cpp, plain attention", Attention::llama_plain, false, false},
    {"llama.cpp, flash attention", Attention::llama_flash, false, false},
    {"llama.cpp, plain, OpenBLAS", Attention::llama_plain, true, false},
    {"llama.cpp, flash, OpenBLAS", Attention::llama_flash, true, false},
    {"sinkscope, not measuring", Attention::sinkscope, true, false},
    {"sinkscope, measuring", Attention::sinkscope, true, true},
    {"sinkscope, measuring, no BLAS", Attention::sinkscope, false, true},
};

struct Result {
  double seconds = 0;
  double mebibytes = 0;
};

double run(const Way& way, const std::string& path, int n_token) {
  const Model model(path);
  Session session(model, {.n_context = n_token, .n_batch = 512, .n_thread = 0, .kv_type = "f16", .isa = "auto",
                          .attention = way.attention, .all_logits = false, .blas = way.blas, .batch_invariant = false});
  std::mt19937 random(1);
  std::vector<int> tokens(n_token);
  for (int& t : tokens) t = static_cast<int>(random() % static_cast<unsigned>(model.info().n_vocab));
  measure::Recorder recorder(attention::kernels("auto"));
  recorder.start(n_token);
  if (way.measuring) session.watch({&recorder});
  const auto start = std::chrono::steady_clock::now();
  session.run(tokens);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Result in_child(const Way& way, const std::string& path, int n_token) {
  int ends[2];
  if (pipe(ends) != 0) std::exit(1);
  const pid_t child = fork();
  if (child == 0) {
    const double seconds = run(way, path, n_token);
    _exit(write(ends[1], &seconds, sizeof seconds) == sizeof seconds ? 0 : 1);
  }
  close(ends[1]);
  Result result;
  int status = 0;
  rusage usage{};
  if (read(ends[0], &result.seconds, sizeof result.seconds) != sizeof result.seconds) std::exit(1);
  wait4(child, &status, 0, &usage);
  close(ends[0]);
  result.mebibytes = static_cast<double>(usage.ru_maxrss) / 1024;
  return result;
}

struct Spread {
  double low, median, high;
};
Spread spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: bench_prefill MODEL [N_TOKEN [N_ROUND]]\n");
    return 2;
  }
  const int n_token = argc > 2 ? std::atoi(argv[2]) : 2048, n_round = argc > 3 ? std::atoi(argv[3]) : 3;
  std::vector<std::vector<Result>> results(std::size(kWays));
  for (int round = 0; round < n_round; ++round)
    for (size_t w = 0; w < std::size(kWays); ++w) results[w].push_back(in_child(kWays[w], argv[1], n_token));

  fmt::print("prefill of {} tokens, {} rounds; ratios to the first way, within a round\n", n_token, n_round);
  fmt::print("{:<30} {:>8} {:>26} {:>9} {:>7}\n", "way", "seconds", "time ratio [low, high]", "peak MiB", "ratio");
  for (size_t w = 0; w < std::size(kWays); ++w) {
    std::vector<double> seconds, ratios, memory, memory_ratios;
    for (int r = 0; r < n_round; ++r) {
      seconds.push_back(results[w][r].seconds);
      ratios.push_back(results[w][r].seconds / results[0][r].seconds);
      memory.push_back(results[w][r].mebibytes);
      memory_ratios.push_back(results[w][r].mebibytes / results[0][r].mebibytes);
    }
    const Spread ratio = spread(ratios);
    fmt::print("{:<30} {:>8.2f} {:>10.2f} [{:.2f}, {:.2f}] {:>9.0f} {:>7.2f}\n", kWays[w].name, spread(seconds).median, ratio.median,
               ratio.low, ratio.high, spread(memory).median, spread(memory_ratios).median);
  }
}
