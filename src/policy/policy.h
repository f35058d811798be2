// Which rows of a memory stay.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cache/memory.h"

namespace sinkscope::policy {

struct Options {
  int budget = 0;  // rows of each KV head, sinks included; 0: as many as there are
  int sinks = 4;   // rows of the first positions, never dropped
};

class Policy {
 public:
  virtual ~Policy() = default;
  // The rows of a head that stay, [n_row], so that `n_new` more can follow.
  virtual std::vector<bool> kept(const cache::Head& head, int n_new) const = 0;
};

// By name. Throws UsageError where there is no such policy, or the options make no sense for it.
std::unique_ptr<Policy> make(const std::string& name, const Options& options);

// Whether Options::sinks mean something to it.
bool has_sinks(const std::string& name);

// The first `n_first` and the last rows, `most` in all.
std::vector<bool> first_and_last(int n_row, int n_first, int most);

// One file each.
std::unique_ptr<Policy> full(const Options& options);
std::unique_ptr<Policy> window(const Options& options);
std::unique_ptr<Policy> streaming(const Options& options);

}  // namespace sinkscope::policy
