// llama.cpp gives every ACCEL device of ggml's registry to each new context, and the registry knows no locks.
#pragma once

#include <mutex>

namespace sinkscope::session {

inline std::mutex& registry_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace sinkscope::session
