#include "data/token_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/files.h"
#include "io/sha256.h"
#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

constexpr size_t kParts = 20;  // of which the last is for validation

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const auto fail = [&] {
    throw InputError(fmt::format("cannot read '{}' ({}); give a folder of tokens that was prepared for training", path, std::strerror(errno)));
  };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail();
  struct stat status {};
  void* memory = MAP_FAILED;
  if (::fstat(file, &status) == 0) {
    size_ = static_cast<size_t>(status.st_size);
    memory = size_ > 0 ? ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0) : nullptr;
  }
  ::close(file);
  if (memory == MAP_FAILED) fail();
  data_ = static_cast<const char*>(memory);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<char*>(data_), size_);
}

TokenFile::TokenFile(const std::string& folder) : token_bytes_(in(folder, kTokensFile)), document_bytes_(in(folder, kDocumentsFile)) {
  const MappedFile description_bytes(in(folder, kDescriptionFile)), vocabulary_bytes(in(folder, kVocabularyFile));
  const auto refuse = [&](const char* file, std::string_view found) {
    throw InputError(fmt::format("'{}' {}; prepare the texts again", in(folder, file), found));
  };
  const auto description = nlohmann::json::parse(description_bytes.bytes(), nullptr, /*allow_exceptions=*/false);
  if (!description.is_object() || description.value("schema", nlohmann::json()) != kSchema) refuse(kDescriptionFile, fmt::format("is no {}", kSchema));
  const auto check = [&](const char* file, std::string_view bytes) {
    std::string sum = io::sha256(bytes);
    if (description.value(nlohmann::json::json_pointer(fmt::format("/sha256/{}", file)), nlohmann::json()) != sum)
      refuse(file, fmt::format("is damaged: it is not the file that {} describes", kDescriptionFile));
    return sum;
  };
  check(kVocabularyFile, vocabulary_bytes.bytes());
  check(kDocumentsFile, document_bytes_.bytes());
  sha256_ = check(kTokensFile, token_bytes_.bytes());

  vocabulary_.emplace(vocabulary_bytes.bytes(), in(folder, kVocabularyFile));
  tokens_ = {reinterpret_cast<const uint16_t*>(token_bytes_.bytes().data()), token_bytes_.bytes().size() / sizeof(uint16_t)};
  starts_ = {reinterpret_cast<const uint64_t*>(document_bytes_.bytes().data()), document_bytes_.bytes().size() / sizeof(uint64_t)};
  if (tokens_.empty() || std::ranges::max(tokens_) >= n_vocab()) refuse(kTokensFile, "has tokens that are not of its vocabulary");
  if (starts_.size() < 2 || starts_.front() != 0 || starts_.back() != tokens_.size() || !std::ranges::is_sorted(starts_, std::less_equal<>()))
    refuse(kDocumentsFile, fmt::format("does not divide the tokens of {}", kTokensFile));
  starts_ = starts_.first(starts_.size() - 1);
  n_training_ = starts_.size() >= kParts ? starts_[starts_.size() - starts_.size() / kParts] : tokens_.size() - tokens_.size() / kParts;
}

}  // namespace sinkscope::train
