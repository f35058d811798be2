// Results as a picture, drawn by gnuplot.
#pragma once

#include <string>

#include "sinkscope/eval.h"

namespace sinkscope::eval_run {

// SVG: perplexity over position, a line for each result (two stretches of 1,024 tokens or more), and quality over bytes, a
// point for each. Quality is perplexity, or the share of right answers.
std::string to_svg(const Eval& eval);

}  // namespace sinkscope::eval_run
