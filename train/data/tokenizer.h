// Text as tokens, by sentencepiece. Apart from all that uses libtorch: Debian's two libraries carry two versions of protobuf, which
// cannot be in one process.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/vocabulary.h"

namespace sinkscope::train {

// Safe to use from several threads.
class Tokenizer {
 public:
  // From the bytes of a tokenizer.model; `name` is what errors call it. Throws InputError where prepare() did not make it.
  Tokenizer(std::string_view model, const std::string& name);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  std::span<const Piece> pieces() const { return pieces_; }  // by id
  // Appends the tokens of a text; no BOS. Words such as "<s>" in a text are words.
  void encode(std::string_view text, std::vector<uint16_t>& to) const;

 private:
  struct Processor;
  std::unique_ptr<Processor> processor_;
  std::vector<Piece> pieces_;
};

}  // namespace sinkscope::train
