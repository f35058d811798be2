#include "policy/first_and_last.h"

namespace sinkscope::policy {

FirstAndLast::FirstAndLast(Options options, HeadRows rows) : options_(std::move(options)), rows_(std::move(rows)) {
  for (const auto& [head, n] : rows_) check_room(n, options_);
}

Kept FirstAndLast::keep(const Crowded& c) const {
  int head_kv = 0;
  return each_head(c, [&](const cache::Head& head) {
    const auto own = rows_.find({c.index, head_kv++});
    const int64_t rows = own == rows_.end() ? options_.budget : own->second;
    int64_t left = rows - c.n_new;
    if (rows == 0 || head.n_row() <= left) return std::vector<bool>(head.n_row(), true);
    std::vector<bool> kept(head.n_row());
    for (const int row : protected_rows(head, options_)) kept[row] = true, --left;
    for (int row = head.n_row() - 1; left > 0; --row)
      if (!kept[row]) kept[row] = true, --left;
    return kept;
  });
}

}  // namespace sinkscope::policy
