// Randomness without state: numbers that depend on what they are for and on nothing else.
#pragma once

#include <cstdint>

namespace sinkscope::train {

// Splitmix64's finaliser: a bijection whose output bits each depend on all input bits.
constexpr uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// A number for (seed, a, b).
constexpr uint64_t mix(uint64_t seed, uint64_t a, uint64_t b) { return mix(mix(mix(seed) ^ a) ^ b); }

// Of 0..n-1; n is far below 2^64, so that the remainder's bias is nothing.
constexpr uint64_t below(uint64_t n, uint64_t random) { return random % n; }

}  // namespace sinkscope::train
