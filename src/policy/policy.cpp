#include "policy/policy.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

struct Named {
  const char* name;
  std::unique_ptr<Policy> (*make)(const Options&);
  bool needs_budget, has_sinks;
};
constexpr Named kPolicies[] = {{"full", full, false, false}, {"window", window, true, false}, {"streaming", streaming, true, true}};

}  // namespace

std::unique_ptr<Policy> make(const std::string& name, const Options& options) {
  std::vector<std::string> names;
  for (const Named& p : kPolicies) {
    names.push_back(p.name);
    if (name != p.name) continue;
    if (p.needs_budget && options.budget <= 0) throw UsageError(fmt::format("policy '{}' needs a number of rows to keep; give --budget ROWS", name));
    return p.make(options);
  }
  throw UsageError(fmt::format("'{}' is no policy; use one of: {}", name, fmt::join(names, ", ")));
}

bool has_sinks(const std::string& name) {
  return std::ranges::any_of(kPolicies, [&](const Named& p) { return name == p.name && p.has_sinks; });
}

std::vector<bool> first_and_last(int n_row, int n_first, int most) {
  std::vector<bool> kept(n_row, true);
  const int dropped = std::max(0, n_row - std::max(most, 0)), begin = std::min(n_first, std::max(most, 0));
  std::fill_n(kept.begin() + begin, dropped, false);
  return kept;
}

}  // namespace sinkscope::policy
