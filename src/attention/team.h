// The one place where work is split over threads.
#pragma once

#include <functional>

namespace sinkscope::attention {

// task(index, thread) for every index of [0, n_task), on up to n_thread threads; returns when all are done.
// With OpenMP it is the team that ggml uses: a second pool would oversubscribe the cores.
// The first exception of a task is thrown again here.
void run_tasks(int n_task, int n_thread, const std::function<void(int task, int thread)>& task);

}  // namespace sinkscope::attention
