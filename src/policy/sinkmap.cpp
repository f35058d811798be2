#include <algorithm>
#include <cmath>

#include "policy/first_and_last.h"

namespace sinkscope::policy {
namespace {

// How much a head loses by keeping few rows. With w rows of n it loses about c (1 / w - 1 / n): c by least squares.
double need_of(const HeadLoss& head, const SinkMap& map) {
  double product = 0, square = 0;
  for (size_t i = 0; i < map.windows.size(); ++i) {
    const double short_by = 1.0 / map.windows[i] - 1.0 / std::max(map.n_token, map.windows[i]);
    product += short_by * std::max(head.kl[i], 0.0);
    square += short_by * short_by;
  }
  return square > 0 ? product / square : 0;
}

}  // namespace

// Ours: the sinks that a sink map found, wherever they are, and the last rows of each KV head. Heads share the budget by
// measured loss: the sum of c / rows is least where rows go with the square root of c.
std::unique_ptr<Policy> sinkmap(const Options& options) {
  const SinkMap& map = *options.map;
  Options own = options;
  protect_also(own, map.positions);
  check_room(options.budget, own);

  // Beside what every head must have, by need.
  const int least = std::min(options.budget, options.n_batch + static_cast<int>(own.protect.size()) + options.budget / 4);
  double sum = 0;
  for (const HeadLoss& h : map.heads) sum += std::sqrt(need_of(h, map));
  const double left = static_cast<double>(options.budget - least) * static_cast<double>(map.heads.size());
  HeadRows rows;
  for (const HeadLoss& h : map.heads)
    rows[{h.layer, h.head}] = least + static_cast<int64_t>(sum > 0 ? left * std::sqrt(need_of(h, map)) / sum : left / static_cast<double>(map.heads.size()));
  return std::make_unique<FirstAndLast>(own, rows);
}

}  // namespace sinkscope::policy
