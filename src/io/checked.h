// Files whose first line names a schema and the SHA-256 of all that follows.
#pragma once

#include <string>
#include <string_view>

#include "sinkscope/atomic_file.h"

namespace sinkscope::io {

void write_checked(AtomicFile& file, std::string_view schema, std::string_view body);

// What follows the first line of `text`, the content of the file at `path`. Throws InputError for another schema, which ends
// with `wanted` ("saved stream; give a file of --save"), and for bytes that are not those that were written.
std::string_view checked_body(std::string_view text, std::string_view schema, const std::string& path, std::string_view wanted);

}  // namespace sinkscope::io
