#include "measure/recorder.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>

#include "attention/attend.h"

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
    Recorder recorder(attention::kernels("auto"));
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
