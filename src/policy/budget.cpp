#include "policy/budget.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "sinkscope/error.h"

namespace sinkscope::policy {

int64_t bytes_of(const std::string& text) {
  constexpr std::pair<std::string_view, int> kUnits[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, text.data() + text.size() - end);
  for (const auto& [name, shift] : kUnits)
    if (error == std::errc() && number > 0 && unit == name && number <= INT64_MAX >> shift) return number << shift;
  throw UsageError(fmt::format("'{}' is no amount of memory; give one as in 8MiB, 300KiB or 1GiB", text));
}

int rows_within(int64_t bytes, const cache::Memory& memory, const std::function<int(int)>& window, const cache::Observe& observe, bool scattered, int n_batch) {
  // What a head has beside its rows: as many holes as Head::keep suffers, or a sixteenth of the rows, and the newest block.
  constexpr double kSpareRows = 3 * cache::kBlockRows, kHoles = 17.0 / 16;
  constexpr double kPart = 1.25 * sizeof(cache::Head::Part);  // of a vector that grows
  // The newest observation and notes grow with the rows, into up to twice the room.
  const int n_observation = observe.n_observation(), n_growing = (n_observation > 0) + observe.notes;
  const double observed = 1.0 * sizeof(float) * (n_observation + n_growing), observations = 2.0 * sizeof(cache::Observation) * n_observation;
  constexpr double kFree = cache::Memory::kFreeShare / (cache::Memory::kFreeShare - 1.0);
  double of_row = 0, fixed = 1 << 16;
  for (size_t i = 0; i < memory.layers().size(); ++i) {
    const cache::Layer& layer = memory.layers()[i];
    if (layer.heads.empty()) continue;
    if (layer.queries) fixed += static_cast<double>(layer.queries->bytes());
    const auto row_of = [&](bool settled, int rows_of_block) {
      const auto block = static_cast<double>(sizeof(cache::Block) + cache::Block::data_bytes(*layer.storage, settled, rows_of_block));
      return kHoles * (kFree * block + kPart) / rows_of_block;
    };
    const double kept = row_of(true, scattered ? 1 : cache::kBlockRows), kept_by_window = row_of(true, cache::kBlockRows), fresh = row_of(false, cache::kBlockRows);
    const int keeps = window(static_cast<int>(i));
    const auto n_head = static_cast<double>(layer.heads.size());
    fixed += n_head * (kSpareRows * fresh + (keeps > 0 ? (keeps + n_batch) * kept_by_window : kSpareRows * observed + observations));
    if (keeps == 0) of_row += n_head * (kept + observed);
  }
  const double rows = of_row > 0 ? (static_cast<double>(bytes) - fixed) / of_row : 1e9;
  if (rows < 1)
    throw UsageError(fmt::format("--kv-budget of {} bytes is too little: this model takes {:.0f} before a policy keeps a row; give more", bytes, fixed));
  return static_cast<int>(std::min(rows, 1e9));
}

}  // namespace sinkscope::policy
