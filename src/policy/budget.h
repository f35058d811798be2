// Budgets in bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "cache/memory.h"
#include "cache/observer.h"

namespace sinkscope::policy {

// "8MiB", "300KiB", "1GiB" or a number of bytes. Throws UsageError for anything else.
int64_t bytes_of(const std::string& text);

// How many rows each KV head may have so that a memory with these layers stays within the bytes: holes, bookkeeping and
// observations counted. `window(layer)`: the keys that layers with a sliding window keep whatever happens, 0 for the others.
// `scattered`: the policy may leave single rows of blocks, each of which then carries what a block has once.
// Throws UsageError where there is no room for any.
int rows_within(int64_t bytes, const cache::Memory& memory, const std::function<int(int layer)>& window, const cache::Observe& observe, bool scattered, int n_batch);

}  // namespace sinkscope::policy
