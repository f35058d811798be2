// The first rows and the last ones: StreamingLLM, and policies that give each KV head a number of its own.
#pragma once

#include <map>
#include <utility>

#include "policy/policy.h"

namespace sinkscope::policy {

using HeadRows = std::map<std::pair<int, int>, int64_t>;  // (layer, KV head): rows, those to come included

// The protected rows and the last ones. Heads that are not listed have the budget's rows; 0 is no bound. Throws UsageError where a
// head has no room for what is protected.
class FirstAndLast : public Policy {
 public:
  explicit FirstAndLast(Options options, HeadRows rows = {});
  Kept keep(const Crowded& c) const override;

 private:
  Options options_;
  HeadRows rows_;
};

}  // namespace sinkscope::policy
