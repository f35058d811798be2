// Which experts sink tokens are sent to against others, gathered over prompts, and which are Super Experts (2507.23279).
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "measure/experts.h"
#include "sinkscope/explain.h"

namespace sinkscope::explain_run {

class ExpertUses {
 public:
  // Of one prompt; `is_sink` says it of each token.
  void add(std::span<const measure::ExpertRecord> layers, const std::vector<bool>& is_sink);
  // Those that sink tokens are sent to, and super experts: those with a large output in `forming`, the layers that make massive
  // activations.
  std::vector<ExpertUse> list(std::span<const measure::ExpertRecord> layers, const std::set<int>& forming) const;

 private:
  struct Tally {
    double sinks = 0, others = 0, sink_weight = 0, other_weight = 0;
  };
  std::vector<std::vector<Tally>> tallies_;  // [layer][expert]
  int64_t n_sink_ = 0, n_other_ = 0;         // tokens
};

}  // namespace sinkscope::explain_run
