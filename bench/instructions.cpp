// A fixed piece of work for counting instructions: instructions prefill|decode. One thread and AVX2, which valgrind knows.
#include <cstdio>
#include <cstring>
#include <vector>

#include "attention/attend.h"
#include "measure/recorder.h"

using namespace sinkscope;

namespace {

// Where callgrind counts.
__attribute__((noinline)) void counted_attend(const attention::Call& call, std::span<Probe* const> probes,
                                              const attention::Kernels& kernels, attention::Workspace& work) {
  attention::attend(call, probes, kernels, 1, work);
}

}  // namespace

int main(int argc, char** argv) {
  const bool decode = argc == 2 && std::strcmp(argv[1], "decode") == 0;
  if (!decode && (argc != 2 || std::strcmp(argv[1], "prefill") != 0)) {
    std::fprintf(stderr, "usage: instructions prefill|decode\n");
    return 2;
  }
  constexpr int d = 64, n_head = 3, n_key = 1024;
  const int n_query = decode ? 1 : 128;
  std::vector<float> q(n_head * n_query * d, .01f), out(q.size());
  std::vector<uint16_t> kv(n_key * d, 0x2C00), mask(n_query * n_key, 0);
  for (size_t i = 0; i < kv.size(); ++i) kv[i] = static_cast<uint16_t>(kv[i] + i % 97);
  for (int i = 0; i < n_query; ++i)
    for (int k = n_key - n_query + i + 1; k < n_key; ++k) mask[i * n_key + k] = 0xFC00;
  attention::Call call;
  call.layer = 0;
  call.n_query = n_query;
  call.n_key = n_key;
  call.n_head = n_head;
  call.n_head_kv = 1;
  call.d_key = call.d_value = d;
  call.q = q.data();
  call.q_query_stride = d;
  call.q_head_stride = static_cast<size_t>(n_query) * d;
  call.k = call.v = {reinterpret_cast<const std::byte*>(kv.data()), 2 * d, 2 * d, 0, attention::Element::f16, nullptr};
  call.mask = {mask.data(), n_key, mask.size(), mask.size(), 1, 1};
  call.out = out.data();
  const attention::Kernels& kernels = attention::kernels("avx2");
  measure::Recorder recorder(kernels, {.maps = {}, .all_first_mass = false});
  Probe* probes[] = {&recorder};
  attention::Workspace work;
  recorder.start(n_key);
  counted_attend(call, probes, kernels, work);
}
