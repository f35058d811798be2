// The pieces that tokens stand for: what an exporter to GGUF writes for llama.cpp's tokenizer "llama". Every byte has a token of
// its own, so that any text can be encoded, and comes back to the byte. The one exception is U+2581, which stands for a space inside
// pieces and comes back as one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sinkscope::train {

enum class PieceKind : int32_t { normal = 1, unknown = 2, control = 3, byte = 6 };  // as GGUF's tokenizer.ggml.token_type

struct Piece {
  std::string text;  // U+2581 stands for a space; "<0x0A>" for a byte
  float score = 0;   // of two pairs, the one with the higher score is merged first
  PieceKind kind = PieceKind::normal;
};

// In GGUF: tokenizer.ggml.model "llama", tokens, scores and token_type from pieces(), bos_token_id, eos_token_id and
// unknown_token_id, add_space_prefix false; add_bos_token as the model was trained.
class Vocabulary {
 public:
  // From json_of(); `name` is what errors call it. Throws InputError.
  Vocabulary(std::string_view json, const std::string& name);
  static std::string json_of(std::span<const Piece> pieces);

  int size() const { return static_cast<int>(pieces_.size()); }
  std::span<const Piece> pieces() const { return pieces_; }  // [size()], by id
  uint16_t bos() const { return kBos; }
  uint16_t eos() const { return kEos; }
  uint16_t unknown() const { return kUnknown; }

  // BOS, EOS and unknown are no text. Throws InputError for an id that is none of the vocabulary's.
  std::string decode(std::span<const uint16_t> tokens) const;

  static constexpr uint16_t kUnknown = 0, kBos = 1, kEos = 2, kFirstByte = 3;  // ids; all from kFirstByte on are text

 private:
  std::vector<Piece> pieces_;  // [size()]
};

}  // namespace sinkscope::train
