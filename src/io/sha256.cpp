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

namespace {

class Digest {
 public:
  Digest() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void add(const void* data, size_t n) { EVP_DigestUpdate(context_.get(), data, n); }
  std::string hexadecimal() {
    std::vector<unsigned char> hash(EVP_MD_size(EVP_sha256()));
    EVP_DigestFinal_ex(context_.get(), hash.data(), nullptr);
    return fmt::format("{:02x}", fmt::join(hash, ""));
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

}  // namespace

std::string sha256_of_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  Digest digest;
  std::vector<char> block(1 << 20);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())), file.gcount() > 0) digest.add(block.data(), file.gcount());
  if (!file.eof()) throw InputError(fmt::format("cannot read '{}' ({})", path, std::strerror(errno)));
  return digest.hexadecimal();
}

std::string sha256(std::string_view bytes) {
  Digest digest;
  digest.add(bytes.data(), bytes.size());
  return digest.hexadecimal();
}

}  // namespace sinkscope::io
