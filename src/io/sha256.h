#pragma once

#include <string>

namespace sinkscope::io {

// Of a file, in hexadecimal. Throws InputError where it cannot be read.
std::string sha256_of_file(const std::string& path);

}  // namespace sinkscope::io
