// The one place where work is split over threads.
#pragma once

#include <memory>
#include <type_traits>

namespace sinkscope::attention {

// A task that somebody else keeps alive: no memory is taken for it.
class TaskRef {
 public:
  template <class Task>
    requires(!std::is_same_v<std::remove_cvref_t<Task>, TaskRef>)
  TaskRef(Task&& task)  // NOLINT: made from any lambda
      : task_(const_cast<void*>(static_cast<const void*>(std::addressof(task)))),
        call_([](void* t, int index, int thread) { (*static_cast<std::remove_reference_t<Task>*>(t))(index, thread); }) {}
  void operator()(int index, int thread) const { call_(task_, index, thread); }

 private:
  void* task_;
  void (*call_)(void*, int, int);
};

// task(index, thread) for every index of [0, n_task), on up to n_thread threads; returns when all are done.
// With OpenMP it is the team that ggml uses: a second pool would oversubscribe the cores.
// The first exception of a task is thrown again here.
void run_tasks(int n_task, int n_thread, TaskRef task);

}  // namespace sinkscope::attention
