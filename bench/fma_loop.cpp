#include "bench/fma_loop.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/fma_loop.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kSums = 12;  // more than latency times units
constexpr hn::ScalableTag<float> f;

HWY_ATTR float fma_loop(int n_turn) {
  hn::Vec<decltype(f)> sums[kSums];
  for (auto& sum : sums) sum = hn::Set(f, static_cast<float>(n_turn));
  const auto x = hn::Set(f, 0.5f), y = hn::Set(f, 1.0f);
  for (int i = 0; i < n_turn; ++i)
    HWY_UNROLL(12)
    for (auto& sum : sums) sum = hn::MulAdd(sum, x, y);
  auto total = sums[0];
  for (const auto& sum : sums) total = hn::Add(total, sum);
  return hn::GetLane(total);
}

constexpr FmaLoop kLoop = {2.0 * kSums * hn::MaxLanes(f), &fma_loop};

}  // namespace HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <map>

const FmaLoop* fma_loop(const std::string& isa) {
  static const std::map<std::string, const FmaLoop*> loops = {
#if HWY_TARGETS & HWY_AVX3
      {"avx512", &N_AVX3::kLoop},
#endif
#if HWY_TARGETS & HWY_AVX2
      {"avx2", &N_AVX2::kLoop},
#endif
#if HWY_TARGETS & HWY_SSE4
      {"sse4", &N_SSE4::kLoop},
#endif
#if HWY_TARGETS & HWY_NEON
      {"neon", &N_NEON::kLoop},
#endif
#if HWY_TARGETS & HWY_EMU128
      {"generic", &N_EMU128::kLoop},
#endif
  };
  const auto found = loops.find(isa);
  return found == loops.end() ? nullptr : found->second;
}
#endif
