// An explanation as text.
#pragma once

#include <string>

#include "sinkscope/explain.h"
#include "terminal.h"

namespace sinkscope::cli {

// What explain adds to a profile: hidden states, geometry, outliers, secondary sinks, experts, dormant heads.
std::string view(const Explanation& explanation, const Terminal& terminal);

}  // namespace sinkscope::cli
