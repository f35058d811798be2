#include "policy/protect.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cache/coding.h"
#include "policy/policy.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

constexpr std::string_view kFirst = "first:", kSinkMap = "sinkmap:";
constexpr int kMostFirst = 1 << 20;

}  // namespace

std::vector<int32_t> first_positions(int n) {
  std::vector<int32_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

std::string sink_map_of(const std::string& text) { return text.starts_with(kSinkMap) ? text.substr(kSinkMap.size()) : ""; }

std::vector<int32_t> protected_positions(const std::string& text, const std::string& kv_type, const Subject& subject) {
  if (text == "auto") return protected_positions(cache::coding(cache::precision(kv_type)).settles ? "first:4" : "none", kv_type, subject);
  if (text == "none") return {};
  if (text.starts_with(kSinkMap)) return read_sink_map(sink_map_of(text), subject).positions;
  int n = -1;
  if (text.starts_with(kFirst)) {
    const char* end = text.data() + text.size();
    if (const auto [at, error] = std::from_chars(text.data() + kFirst.size(), end, n); error != std::errc() || at != end) n = -1;
  }
  if (n < 0 || n > kMostFirst) throw UsageError(fmt::format("--protect '{}' names no rows; use auto, first:N, sinkmap:FILE or none", text));
  return first_positions(n);
}

std::vector<std::string> unprotected(const std::string& text, std::span<const std::string> policies) {
  const auto protects = [](const std::string& policy) { return std::ranges::any_of(kinds(), [&](const Kind& k) { return k.protects && k.name == policy; }); };
  std::vector<std::string> others;
  if (text != "auto" && text != "none") std::ranges::remove_copy_if(policies, std::back_inserter(others), protects);
  return others;
}

void check_protects(const std::string& text, std::span<const std::string> policies) {
  if (text != "auto" && text != "none" && unprotected(text, policies).size() == policies.size())
    throw UsageError(fmt::format("--protect {} asks for rows to stay, and {} keeps the newest alone; leave it away, or use streaming", text, fmt::join(policies, " and ")));
}

}  // namespace sinkscope::policy
