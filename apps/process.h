// What both programs do with their process.
#pragma once

#include <csignal>
#include <cstdlib>

#include <unistd.h>

// GNU OpenMP spins for milliseconds at each barrier before it sleeps, which makes a busy machine ten times slower. It
// reads its environment before main: so once more from the start.
inline void spin_less(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "10000", 0);
  execv("/proc/self/exe", argv);  // where that fails, slower is all
}

// A signal that whoever started the program has switched off (nohup, a shell's background job) stays so.
inline void handle(int signal, void (*handler)(int), int flags = 0) {
  struct sigaction before {}, action {};
  sigaction(signal, nullptr, &before);
  if (before.sa_handler == SIG_IGN) return;
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigaction(signal, &action, nullptr);
}
