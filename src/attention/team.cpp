#include "attention/team.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace sinkscope::attention {

void run_tasks(int n_task, int n_thread, TaskRef task) {
  n_thread = std::max(1, std::min(n_thread, n_task));
  if (n_thread == 1) {
    for (int i = 0; i < n_task; ++i) task(i, 0);
    return;
  }

  std::atomic<int> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  const auto work = [&](int thread) {
    try {
      for (int i; (i = next.fetch_add(1)) < n_task;) task(i, thread);
    } catch (...) {
      const std::lock_guard lock(failing);
      if (!failure) failure = std::current_exception();
    }
  };

#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(n_thread)
  for (int t = 0; t < n_thread; ++t) work(t);
#else
  std::vector<std::jthread> threads;
  for (int t = 1; t < n_thread; ++t) threads.emplace_back(work, t);
  work(0);
  threads.clear();
#endif
  if (failure) std::rethrow_exception(failure);
}

}  // namespace sinkscope::attention
