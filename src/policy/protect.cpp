#include "policy/protect.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cache/coding.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

constexpr std::string_view kFirst = "first:", kSinkMap = "sinkmap:";
constexpr int kMostFirst = 1 << 20;

std::vector<int32_t> sinks_of(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw InputError(fmt::format("cannot read '{}'; give a sink map of sinkscope profile --sinkmap", path));
  std::vector<int32_t> positions;
  try {
    const auto map = nlohmann::json::parse(file);
    if (map.at("schema") != "sinkscope.sinkmap/1") throw InputError("");
    for (const auto& sink : map.at("positions")) positions.push_back(sink.at("position"));
  } catch (const std::exception&) {
    throw InputError(fmt::format("'{}' is no sink map (schema sinkscope.sinkmap/1); make one by sinkscope profile --sinkmap", path));
  }
  std::ranges::sort(positions);
  return positions;
}

}  // namespace

std::vector<int32_t> protected_positions(const std::string& text, const std::string& kv_type) {
  if (text == "auto") return protected_positions(cache::coding(cache::precision(kv_type)).settles ? "first:4" : "none", kv_type);
  if (text == "none") return {};
  if (text.starts_with(kSinkMap)) return sinks_of(text.substr(kSinkMap.size()));
  int n = -1;
  if (text.starts_with(kFirst)) {
    const char* end = text.data() + text.size();
    if (const auto [at, error] = std::from_chars(text.data() + kFirst.size(), end, n); error != std::errc() || at != end) n = -1;
  }
  if (n < 0 || n > kMostFirst) throw UsageError(fmt::format("--protect '{}' names no rows; use auto, first:N, sinkmap:FILE or none", text));
  std::vector<int32_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

}  // namespace sinkscope::policy
