// Numbers that options may not have. All throw UsageError.
#pragma once

#include <fmt/format.h>

#include "sinkscope/error.h"

namespace sinkscope::session {

template <class Number>
void at_least(const char* option, Number value, Number least) {
  if (value < least) throw UsageError(fmt::format("{} {} is too small; use {} or more", option, value, least));
}

template <class Number>
void between(const char* option, Number value, Number low, Number high) {
  if (!(value >= low && value <= high)) throw UsageError(fmt::format("{} {} is not between {} and {}; give a number that is", option, value, low, high));
}

}  // namespace sinkscope::session
