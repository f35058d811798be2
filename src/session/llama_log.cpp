#include "session/llama_log.h"

#include <mutex>

#include <llama.h>

namespace sinkscope::session {
namespace {

// llama.cpp may log from threads of its own while it loads: one log for the process.
std::mutex log_mutex;
std::string first_error;

void keep(ggml_log_level level, const char* text, void*) {
  if (level != GGML_LOG_LEVEL_ERROR) return;
  const std::lock_guard lock(log_mutex);
  if (!first_error.empty()) return;
  first_error = text;
  if (const size_t colon = first_error.find(": "); colon != std::string::npos) first_error.erase(0, colon + 2);
  while (!first_error.empty() && (first_error.back() == '\n' || first_error.back() == '.')) first_error.pop_back();
}

}  // namespace

void keep_llama_log() {
  static std::once_flag once;
  std::call_once(once, [] { llama_log_set(keep, nullptr); });
}

void clear_llama_log() {
  const std::lock_guard lock(log_mutex);
  first_error.clear();
}

std::string first_llama_error() {
  const std::lock_guard lock(log_mutex);
  return first_error;
}

}  // namespace sinkscope::session
