// Bytes made small, and made text.
#pragma once

#include <string>
#include <string_view>

namespace sinkscope::io {

std::string deflated(std::string_view bytes);  // in zlib's format (RFC 1950)
std::string base64(std::string_view bytes);    // with padding, in one line (RFC 4648)

}  // namespace sinkscope::io
