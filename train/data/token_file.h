// A folder that prepare() wrote, mapped into memory: whoever reads it pays for what is read.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "data/vocabulary.h"

namespace sinkscope::train {

// A file as memory, read only.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // throws InputError
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::string_view bytes() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

// Never changes. The last twentieth is for validation: of the documents where there are 20 or more, else of the tokens.
class TokenFile {
 public:
  // Compares every file with its sha256. Throws InputError for a folder that prepare() did not write, or a damaged one.
  explicit TokenFile(const std::string& folder);

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  int n_vocab() const { return vocabulary_->size(); }
  uint16_t bos() const { return vocabulary_->bos(); }
  const std::string& sha256() const { return sha256_; }  // of the tokens: the same data, the same training

  std::span<const uint16_t> tokens() const { return tokens_; }          // [n_token], BOS before each document
  std::span<const uint64_t> document_starts() const { return starts_; } // [n_document], in tokens(), ascending from 0
  std::span<const uint16_t> training() const { return tokens_.first(n_training_); }
  std::span<const uint16_t> validation() const { return tokens_.subspan(n_training_); }

 private:
  MappedFile token_bytes_, document_bytes_;
  std::optional<Vocabulary> vocabulary_;
  std::span<const uint16_t> tokens_;
  std::span<const uint64_t> starts_;
  size_t n_training_ = 0;
  std::string sha256_;
};

}  // namespace sinkscope::train
