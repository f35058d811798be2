#include "attention/team.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

namespace sinkscope::attention {
namespace {

TEST(Team, EveryTaskRunsOnceOnAThreadThatIsThere) {
  for (const int n_thread : {1, 2, 5}) {
    std::vector<std::atomic<int>> runs(100);
    run_tasks(100, n_thread, [&](int task, int thread) {
      EXPECT_LT(thread, n_thread);
      ++runs[task];
    });
    for (const auto& n : runs) EXPECT_EQ(n, 1);
  }
}

TEST(Team, AnExceptionOfATaskComesOut) {
  EXPECT_THROW(run_tasks(10, 2, [](int task, int) { if (task == 3) throw std::runtime_error("x"); }), std::runtime_error);
}

}  // namespace
}  // namespace sinkscope::attention
