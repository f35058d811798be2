#include "data/vocabulary.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

constexpr std::string_view kSpace = "\u2581";

}  // namespace

Vocabulary::Vocabulary(std::string_view json, const std::string& name) {
  const auto list = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  try {
    for (const auto& piece : list.is_array() ? list : throw InputError("")) pieces_.push_back({piece.at(0), piece.at(1), static_cast<PieceKind>(piece.at(2).get<int>())});
    if (size() <= kFirstByte || size() > UINT16_MAX + 1) throw InputError("");
  } catch (const std::exception&) {
    throw InputError(fmt::format("'{}' is no list of pieces; prepare the texts again", name));
  }
}

std::string Vocabulary::json_of(std::span<const Piece> pieces) {
  auto list = nlohmann::json::array();
  for (const Piece& p : pieces) list.push_back({p.text, p.score, static_cast<int>(p.kind)});
  return list.dump() + "\n";
}

std::string Vocabulary::decode(std::span<const uint16_t> tokens) const {
  std::string text;
  for (const uint16_t id : tokens) {
    if (id >= size()) throw InputError(fmt::format("token {} is none of a vocabulary of {}; give tokens of this vocabulary", id, size()));
    const Piece& piece = pieces_[id];
    if (piece.kind == PieceKind::byte) {
      text += static_cast<char>(id - kFirstByte);
    } else if (piece.kind == PieceKind::normal) {
      for (size_t i = 0; i < piece.text.size();) {
        const bool space = std::string_view(piece.text).substr(i).starts_with(kSpace);
        text += space ? ' ' : piece.text[i];
        i += space ? kSpace.size() : 1;
      }
    }
  }
  return text;
}

}  // namespace sinkscope::train
