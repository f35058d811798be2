#include "io/encoding.h"

#include <openssl/evp.h>
#include <zlib.h>

#include "sinkscope/error.h"

namespace sinkscope::io {

std::string deflated(std::string_view bytes) {
  uLongf n = compressBound(bytes.size());
  std::string out(n, '\0');
  if (compress2(reinterpret_cast<Bytef*>(out.data()), &n, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), Z_DEFAULT_COMPRESSION) != Z_OK)
    throw InternalError("zlib did not deflate");
  out.resize(n);
  return out;
}

std::string base64(std::string_view bytes) {
  constexpr size_t kPart = size_t{3} << 24;  // OpenSSL counts in int; a multiple of 3 needs no padding
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');  // OpenSSL closes with a zero
  size_t at = 0;
  for (size_t i = 0; i < bytes.size(); i += kPart) {
    const std::string_view part = bytes.substr(i, kPart);
    at += EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data() + at), reinterpret_cast<const unsigned char*>(part.data()), static_cast<int>(part.size()));
  }
  out.resize(at);
  return out;
}

}  // namespace sinkscope::io
