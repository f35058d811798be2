// Pictures, drawn by the program gnuplot.
#pragma once

#include <string>

namespace sinkscope::io {

// Throws InputError where gnuplot is missing: before long work, so that it does not fail at the end.
void check_gnuplot();

// What gnuplot draws of a script whose terminal is svg and that names no output. Throws InputError where it draws nothing.
std::string svg_of(const std::string& script);

}  // namespace sinkscope::io
