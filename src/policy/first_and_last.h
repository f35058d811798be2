// The first rows and the last ones: StreamingLLM, and policies that give each KV head a number of its own.
#pragma once

#include <map>
#include <utility>

#include "policy/policy.h"

namespace sinkscope::policy {

using HeadRows = std::map<std::pair<int, int>, int>;  // (layer, KV head): rows, those to come included

// `sinks` rows at the start, the protected ones, and the last. Heads that are not listed have the budget's rows; 0 is no bound.
class FirstAndLast : public Policy {
 public:
  explicit FirstAndLast(Options options, HeadRows rows = {}) : options_(std::move(options)), rows_(std::move(rows)) {}
  Kept keep(const Crowded& c) const override;

 private:
  Options options_;
  HeadRows rows_;
};

}  // namespace sinkscope::policy
