// What the processor multiplies and adds at most: independent sums in registers, no memory.
#pragma once

#include <string>

struct FmaLoop {
  double flop_per_turn;
  float (*run)(int n_turn);
};

// For an instruction set by its name in --isa; null where none was compiled.
const FmaLoop* fma_loop(const std::string& isa);
