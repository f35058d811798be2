// The curve as a picture, drawn by gnuplot.
#pragma once

#include <string>

#include "sinkscope/emergence.h"

namespace sinkscope::emergence_run {

// SVG over steps: attention to the first token with the strongest head and uniform attention; and the sink rate with its null and
// the residual peak. The onset is a line.
std::string to_svg(const Emergence& emergence);

}  // namespace sinkscope::emergence_run
