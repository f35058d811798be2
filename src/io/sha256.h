#pragma once

#include <string>
#include <string_view>

namespace sinkscope::io {

// Of a file, in hexadecimal. Throws InputError where it cannot be read.
std::string sha256_of_file(const std::string& path);

std::string sha256(std::string_view bytes);

}  // namespace sinkscope::io
