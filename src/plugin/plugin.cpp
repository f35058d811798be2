// libggml-sinkscope.so: the device inside unmodified programs of llama.cpp, by GGML_BACKEND_PATH.
// SINKSCOPE_OUT=FILE.json leaves what was measured when the program ends, and on SIGUSR1; without it nothing but the
// kernel changes.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include <semaphore.h>

#include "attention/kernels.h"
#include "backend/device.h"
#include "backend/registry.h"
#include "plugin/cell_recorder.h"
#include "sinkscope/atomic_file.h"

namespace sinkscope::plugin {
namespace {

std::string out;
CellRecorder* recorder = nullptr;  // lives as long as the process: contexts may end after static objects
sem_t wanted;

void write_out() {
  try {
    AtomicFile file(out);
    file.write(recorder->to_json());
    file.commit();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "sinkscope: %s\n", e.what());
  }
}

void start_recording() {
  try {
    const AtomicFile probe(out);  // a place that cannot be written shows now
  } catch (const std::exception& e) {
    std::fprintf(stderr, "sinkscope: %s\n", e.what());
  }
  recorder = new CellRecorder(attention::kernels("auto"));
  sem_init(&wanted, 0, 0);
  std::thread([] {
    for (;;)
      if (sem_wait(&wanted) == 0) write_out();
      else if (errno != EINTR) return;
  }).detach();
  std::signal(SIGUSR1, [](int) { sem_post(&wanted); });
  std::atexit(write_out);
}

}  // namespace
}  // namespace sinkscope::plugin

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init() {
  using namespace sinkscope;
  static const bool started = [] {
    if (const char* file = std::getenv("SINKSCOPE_OUT"); file && *file) {
      plugin::out = file;
      plugin::start_recording();
    }
    backend::Attachment attachment;
    attachment.kernels = &attention::kernels("auto");
    if (plugin::recorder) attachment.probes.push_back(plugin::recorder);
    backend::attach_by_default(attachment);
    return true;
  }();
  return started ? backend::registry() : nullptr;
}
