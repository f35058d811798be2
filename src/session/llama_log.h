// What llama.cpp and ggml say, kept for error sentences; nothing is printed.
#pragma once

#include <string>

namespace sinkscope::session {

// Takes over both logs of the process; later calls do nothing.
void keep_llama_log();

// Forgets what this thread's calls have logged so far.
void clear_llama_log();

// The first error since then, without function name and line break; empty: none.
std::string first_llama_error();

}  // namespace sinkscope::session
