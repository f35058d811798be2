#include "policy/policy.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "policy/protect.h"
#include "sinkscope/error.h"

namespace sinkscope::policy {
namespace {

constexpr Kind kKinds[] = {
    {.name = "full", .make = full, .needs_budget = false, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = false, .scatters = false, .gaps = false},
    {.name = "window", .make = window, .needs_budget = true, .has_sinks = false, .protects = false, .keeps_window = false, .needs_map = false, .scatters = false, .gaps = false},
    {.name = "streaming", .make = streaming, .needs_budget = true, .has_sinks = true, .protects = true, .keeps_window = false, .needs_map = false, .scatters = false, .gaps = false},
    {.name = "sinkmap", .make = sinkmap, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = true, .scatters = false, .gaps = false},
    {.name = "duo", .make = duo, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = true, .scatters = false, .gaps = false},
    {.name = "h2o", .make = h2o, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "tova", .make = tova, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "snapkv", .make = snapkv, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = true, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "pyramidkv", .make = pyramidkv, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = true, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "adakv", .make = adakv, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = true, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "criticalkv", .make = criticalkv, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = true, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "expected", .make = expected, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "knorm", .make = knorm, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = false, .scatters = true, .gaps = true},
    {.name = "keydiff", .make = keydiff, .needs_budget = true, .has_sinks = false, .protects = true, .keeps_window = false, .needs_map = false, .scatters = true, .gaps = true},
};

}  // namespace

std::span<const Kind> kinds() { return kKinds; }

std::string kind_names() {
  std::string names;
  for (const Kind& k : kKinds) names += (names.empty() ? "" : ", ") + std::string(k.name);
  return names;
}

const Kind& kind(const std::string& name) {
  const auto* found = std::ranges::find(kKinds, name, [](const Kind& k) { return std::string(k.name); });
  if (found == std::end(kKinds)) throw UsageError(fmt::format("'{}' is no policy; use one of: {}", name, kind_names()));
  return *found;
}

std::unique_ptr<Policy> make(const std::string& name, const Options& options) {
  const Kind& k = kind(name);
  if (k.needs_budget && options.budget <= 0) throw UsageError(fmt::format("policy '{}' needs a number of rows to keep; give --budget ROWS", name));
  if (options.sinks < 0) throw UsageError(fmt::format("{} sinks are no number of rows; use 0 or more", options.sinks));
  if (k.needs_map && (!options.map || options.map->heads.empty()))
    throw UsageError(fmt::format("policy '{}' needs to know the model's heads; give --sinkmap FILE, a sink map that sinkscope calibrate has measured{}", name, name == "duo" ? ", or --duo-heads FILE" : ""));
  Options own = options;
  if (!k.protects) own.protect.clear();
  if (k.has_sinks) protect_also(own, first_positions(options.sinks));
  if (k.needs_budget) check_room(options.budget, own, k.keeps_window ? options.window : 0);
  return k.make(own);
}

void check_room(int64_t rows, const Options& options, int n_last) {
  if (rows > options.n_batch + static_cast<int64_t>(options.protect.size()) + n_last) return;
  throw UsageError(fmt::format("a head would have {} rows, which must hold a batch of {} tokens, {} sinks and protected rows, {} last rows and one more; give more rows, "
                               "a smaller --chunk or fewer protected rows", rows, options.n_batch, options.protect.size(), n_last));
}

void protect_also(Options& options, const std::vector<int32_t>& positions) {
  std::vector<int32_t> all;
  std::ranges::set_union(options.protect, positions, std::back_inserter(all));
  options.protect = std::move(all);
}

std::vector<int> protected_rows(const cache::Head& head, const Options& options) {
  std::vector<int> rows;
  if (options.protect.empty()) return rows;
  const std::vector<int32_t> positions = head.positions();
  for (auto row = positions.begin(); const int32_t position : options.protect) {
    row = std::lower_bound(row, positions.end(), position);
    if (row == positions.end()) break;
    if (*row == position) rows.push_back(static_cast<int>(row - positions.begin()));
  }
  return rows;
}

std::vector<bool> first_and_last(int n_row, int n_first, int most) {
  std::vector<bool> kept(n_row, true);
  const int dropped = std::max(0, n_row - std::max(most, 0)), begin = std::min(n_first, std::max(most, 0));
  std::fill_n(kept.begin() + begin, dropped, false);
  return kept;
}

std::vector<float> observed(const cache::Head& head) {
  std::vector<float> sum(head.n_row());
  for (const cache::Observation& seen : head.observations())
    for (size_t i = 0; i < seen.mass.size(); ++i) sum[i] += seen.mass[i];
  return sum;
}

std::vector<float> smoothed(const std::vector<float>& scores, int width) {
  const int n = static_cast<int>(scores.size());
  std::vector<float> means(n);
  for (int i = 0; i < n; ++i) {
    const int begin = std::max(0, i - width), end = std::min(n, i + width + 1);
    means[i] = std::accumulate(scores.begin() + begin, scores.begin() + end, 0.0f) / static_cast<float>(end - begin);
  }
  return means;
}

void prefer(std::vector<float>& scores, const cache::Head& head, const Options& options, int n_last) {
  constexpr float kLast = std::numeric_limits<float>::max(), kProtected = std::numeric_limits<float>::infinity();
  std::fill(scores.end() - std::min<ptrdiff_t>(n_last, static_cast<ptrdiff_t>(scores.size())), scores.end(), kLast);
  for (const int row : protected_rows(head, options)) scores[row] = kProtected;
}

std::vector<bool> best(const std::vector<float>& scores, int64_t most) {
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n = std::clamp<int64_t>(most, 0, static_cast<int64_t>(order.size()));
  std::nth_element(order.begin(), order.begin() + n, order.end(),
                   [&](int a, int b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a > b; });
  std::vector<bool> kept(scores.size());
  for (int64_t i = 0; i < n; ++i) kept[order[i]] = true;
  return kept;
}

}  // namespace sinkscope::policy
