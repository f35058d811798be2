#include "data/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

constexpr int kBytes = 256;

// Bytes of the well-formed UTF-8 character that a text begins with (Unicode, table 3-7); 0: there is none.
size_t character(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  const size_t n = first >= 0xC2 && first < 0xE0 ? 2 : first >= 0xE0 && first < 0xF0 ? 3 : first >= 0xF0 && first < 0xF5 ? 4 : 0;
  if (n == 0) return 0;
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80, high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < n; ++i)
    if ((at(i) & 0xC0) != 0x80) return 0;
  return n;
}

}  // namespace

struct Tokenizer::Processor {
  sentencepiece::SentencePieceProcessor model;
};

Tokenizer::Tokenizer(std::string_view bytes, const std::string& name) : processor_(std::make_unique<Processor>()) {
  sentencepiece::SentencePieceProcessor& model = processor_->model;
  const auto refuse = [&](std::string_view found) {
    throw InputError(fmt::format("'{}' is {}; give a tokenizer.model that was prepared for training", name, found));
  };
  if (!model.LoadFromSerializedProto(bytes).ok()) refuse("no sentencepiece model");
  const int n = model.GetPieceSize();
  bool ours = model.unk_id() == Vocabulary::kUnknown && model.bos_id() == Vocabulary::kBos && model.eos_id() == Vocabulary::kEos && n >= Vocabulary::kFirstByte + kBytes && n <= UINT16_MAX + 1;
  for (int value = 0; ours && value < kBytes; ++value) ours = model.IdToPiece(Vocabulary::kFirstByte + value) == fmt::format("<0x{:02X}>", value);
  if (!ours) refuse("a sentencepiece model of another kind");
  for (int id = 0; id < n; ++id) {
    const PieceKind kind = model.IsByte(id) ? PieceKind::byte : model.IsUnknown(id) ? PieceKind::unknown : model.IsControl(id) ? PieceKind::control : PieceKind::normal;
    pieces_.push_back({model.IdToPiece(id), model.GetScore(id), kind});
  }
}

Tokenizer::~Tokenizer() = default;

void Tokenizer::encode(std::string_view text, std::vector<uint16_t>& to) const {
  std::vector<int> ids;
  while (!text.empty()) {
    size_t n = 0;
    while (n < text.size())
      if (const size_t length = character(text.substr(n)); length > 0) n += length;
      else break;
    if (const auto status = processor_->model.Encode(text.substr(0, n), &ids); !status.ok())
      throw InternalError("sentencepiece cannot encode a text: " + status.ToString());
    to.insert(to.end(), ids.begin(), ids.end());
    // What is no UTF-8, sentencepiece would replace.
    for (text.remove_prefix(n); !text.empty() && character(text) == 0; text.remove_prefix(1)) to.push_back(static_cast<uint16_t>(Vocabulary::kFirstByte + static_cast<unsigned char>(text[0])));
  }
}

}  // namespace sinkscope::train
