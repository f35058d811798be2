// Which rows a user wants to keep.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "policy/sink_map.h"

namespace sinkscope::policy {

std::vector<int32_t> first_positions(int n);  // 0, 1, ... n - 1

// "first:N", "sinkmap:FILE" (the positions that `sinkscope profile --sinkmap` found) or "none" as positions, in order; "auto"
// is first:4 for a --kv-type that is coarser than F16, else none. Throws UsageError for anything else, InputError for a file
// that is no sink map of the subject.
std::vector<int32_t> protected_positions(const std::string& text, const std::string& kv_type, const Subject& subject);

// Of the policies, those that keep none of the rows that are asked for.
std::vector<std::string> unprotected(const std::string& text, std::span<const std::string> policies);

// Throws UsageError where rows are asked for that none of the policies would keep.
void check_protects(const std::string& text, std::span<const std::string> policies);

// FILE of "sinkmap:FILE", else empty.
std::string sink_map_of(const std::string& text);

}  // namespace sinkscope::policy
