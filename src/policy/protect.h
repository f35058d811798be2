// Which rows a user wants to keep.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sinkscope::policy {

// "first:N", "sinkmap:FILE" (the positions that `sinkscope profile --sinkmap` found) or "none" as positions, in order.
// Throws UsageError for anything else, InputError for a file that is no sink map.
std::vector<int32_t> protected_positions(const std::string& text);

}  // namespace sinkscope::policy
