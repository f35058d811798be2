// A memory as bytes: CBOR (RFC 8949), schema sinkscope.memory/3, docs/json.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/memory.h"

namespace sinkscope::cache {

std::vector<uint8_t> to_bytes(const Memory& memory);

// Replaces what `memory` holds. Throws InputError for bytes that are damaged, or of another precision.
void from_bytes(std::span<const uint8_t> bytes, Memory& memory);

}  // namespace sinkscope::cache
