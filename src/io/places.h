// Where a command's files go.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sinkscope::io {

using Place = std::pair<const char*, std::string>;  // an option, and the file that it names; empty: none

// Throws UsageError where one of `outputs` is an input, or another output, or no file.
void check_places(const std::vector<std::string>& inputs, const std::vector<Place>& outputs);

// With all folders above it; true where it was not there. Throws InputError.
bool make_folder(const std::string& path);

}  // namespace sinkscope::io
