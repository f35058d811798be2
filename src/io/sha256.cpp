#include "io/sha256.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include "sinkscope/error.h"

namespace sinkscope::io {

std::string sha256_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> digest(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(digest.get(), EVP_sha256(), nullptr);
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())), file.gcount() > 0)
    EVP_DigestUpdate(digest.get(), block.data(), file.gcount());
  if (!file.eof()) throw InputError(fmt::format("cannot read '{}' ({})", path, std::strerror(errno)));
  std::vector<unsigned char> hash(EVP_MD_size(EVP_sha256()));
  EVP_DigestFinal_ex(digest.get(), hash.data(), nullptr);
  return fmt::format("{:02x}", fmt::join(hash, ""));
}

}  // namespace sinkscope::io
