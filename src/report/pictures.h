// Pictures of a result without a browser, in the report's colours.
#pragma once

#include <string>

namespace sinkscope::report {

// SVG of a document of profile (layers and heads, positions; with what explain joined), explain (lengths over layers) or
// ablate (edits against their controls).
std::string picture(const std::string& json);

}  // namespace sinkscope::report
