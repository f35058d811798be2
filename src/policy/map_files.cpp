#include "policy/map_files.h"

#include <algorithm>

#include <fmt/format.h>

#include "policy/policy.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {

bool MapFiles::reads_heads(const std::string& policy) const { return policy == "duo" && !duo_heads.empty(); }

std::string MapFiles::of(const std::string& policy) const {
  if (reads_heads(policy)) return duo_heads;
  return std::ranges::any_of(kinds(), [&](const Kind& k) { return k.needs_map && k.name == policy; }) ? sink_map : "";
}

void MapFiles::check(std::span<const std::string> policies) const {
  const auto check_file = [&](const char* option, const std::string& file, const char* readers) {
    if (!file.empty() && std::ranges::none_of(policies, [&](const std::string& policy) { return of(policy) == file; }))
      throw UsageError(fmt::format("{} is given, and no policy that is asked for reads it; leave it away, or use {}", option, readers));
  };
  check_file("--duo-heads", duo_heads, "duo");
  check_file("--sinkmap", sink_map, duo_heads.empty() ? "sinkmap or duo" : "sinkmap");
}

std::shared_ptr<const SinkMap> MapFiles::read(const std::string& policy, const Subject& subject, const std::vector<int>& windows, int n_head_kv) const {
  const std::string file = of(policy);
  if (file.empty()) return nullptr;
  return std::make_shared<const SinkMap>(reads_heads(policy) ? read_duo_heads(file, windows, n_head_kv) : read_calibrated_map(file, subject));
}

}  // namespace sinkscope::policy
