#include "policy/first_and_last.h"

#include <limits>

namespace sinkscope::policy {

Kept FirstAndLast::keep(const Crowded& c) const {
  int head_kv = 0;
  return each_head(c, [&](const cache::Head& head) {
    const auto own = rows_.find({c.index, head_kv++});
    const int rows = own == rows_.end() ? options_.budget : own->second;
    if (rows == 0) return std::vector<bool>(head.n_row(), true);
    if (options_.protect.empty()) return first_and_last(head.n_row(), options_.sinks, rows - c.n_new);
    std::vector<float> age(head.n_row());
    for (int i = 0; i < head.n_row(); ++i) age[i] = i < options_.sinks ? std::numeric_limits<float>::infinity() : static_cast<float>(i);
    prefer(age, head, options_, 0);
    return best(age, rows - c.n_new);
  });
}

}  // namespace sinkscope::policy
