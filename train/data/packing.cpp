#include "data/packing.h"

#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/mix.h"
#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

constexpr std::string_view kFixed = "fixed:";

struct Kind {
  const char* name;
  bool bos_at_documents, random_first;
  int64_t bos_position;
};
constexpr Kind kKinds[] = {
    {.name = "context", .bos_at_documents = false, .random_first = false, .bos_position = 0},
    {.name = "document", .bos_at_documents = true, .random_first = false, .bos_position = -1},
    {.name = "none", .bos_at_documents = false, .random_first = false, .bos_position = -1},
    {.name = "fixed:P", .bos_at_documents = false, .random_first = false, .bos_position = -1},  // P is read from the name
    {.name = "random", .bos_at_documents = false, .random_first = true, .bos_position = -1},
};

int64_t fixed_position(std::string_view kind) {
  int position = -1;
  const std::string_view digits = kind.substr(kFixed.size());
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), position);
  if (error != std::errc() || end != digits.data() + digits.size() || position < 0)
    throw UsageError(fmt::format("packing '{}' has no position; say fixed:0, fixed:1 and so on", kind));
  return position;
}

Kind kind_of(const std::string& name) {
  const bool fixed = name.starts_with(kFixed);
  for (Kind kind : kKinds) {
    if (kind.name != (fixed ? "fixed:P" : name)) continue;
    if (fixed) kind.bos_position = fixed_position(name);
    return kind;
  }
  throw UsageError(fmt::format("'{}' is no packing; use one of: {}", name, fmt::join(packing_names(), ", ")));
}

void check_position(int64_t position, int n_token) {
  if (position >= n_token) throw UsageError(fmt::format("position {} is not in a context of {} tokens; give packing fixed:0 to fixed:{}", position, n_token, n_token - 1));
}

}  // namespace

std::vector<std::string> packing_names() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

void check_packing(const std::string& kind, int n_token) { check_position(kind_of(kind).bos_position, n_token); }

Packing::Packing(const TokenFile& data, const std::string& name, uint64_t seed) : data_(data), seed_(seed) {
  const Kind kind = kind_of(name);
  bos_at_documents_ = kind.bos_at_documents, random_first_ = kind.random_first, bos_position_ = kind.bos_position;
}

void Packing::batch(int64_t step, int n_row, int n_token, std::span<int64_t> to) const {
  const std::span<const uint16_t> part = data_.training();
  check(part, "training", n_row, n_token, to.size());
  const size_t n_column = static_cast<size_t>(n_token) + 1;
  for (size_t row = 0; row < static_cast<size_t>(n_row); ++row) {
    const uint64_t random = mix(seed_, static_cast<uint64_t>(step), row);
    fill(part, below(part.size(), random), random, to.subspan(row * n_column, n_column));
  }
}

void Packing::validation(int64_t first_row, int n_row, int n_token, std::span<int64_t> to) const {
  const std::span<const uint16_t> part = data_.validation();
  check(part, "validation", n_row, n_token, to.size());
  const size_t n_column = static_cast<size_t>(n_token) + 1, n_rows = static_cast<size_t>(n_validation_row(n_token));
  for (size_t row = 0; row < static_cast<size_t>(n_row); ++row) {
    const size_t number = (static_cast<size_t>(first_row) + row) % n_rows;
    fill(part, number * static_cast<size_t>(n_token), mix(number), to.subspan(row * n_column, n_column));
  }
}

int64_t Packing::n_validation_row(int n_token) const {
  const std::span<const uint16_t> part = data_.validation();
  check(part, "validation", 1, n_token, static_cast<size_t>(n_token) + 1);
  return (static_cast<int64_t>(part.size()) - 1) / n_token;
}

void Packing::check(std::span<const uint16_t> part, const char* name, int n_row, int n_token, size_t n_to) const {
  if (n_row < 1 || n_token < 1) throw UsageError(fmt::format("{} contexts of {} tokens are no batch; give 1 or more of both", n_row, n_token));
  if (n_to != static_cast<size_t>(n_row) * (static_cast<size_t>(n_token) + 1))
    throw InternalError(fmt::format("a batch of {} contexts of {} tokens does not fill {} places", n_row, n_token, n_to));
  check_position(bos_position_, n_token);
  if (part.size() <= static_cast<size_t>(n_token))
    throw InputError(fmt::format("the {} part of the data has {} tokens, a context of {} needs {}; give more text or a shorter context", name, part.size(), n_token, n_token + 1));
}

void Packing::fill(std::span<const uint16_t> part, size_t start, uint64_t random, std::span<int64_t> row) const {
  const auto step = [&](size_t at) { return at + 1 == part.size() ? 0 : at + 1; };
  size_t at = start;
  for (size_t i = 0; i < row.size(); ++i) {
    if (static_cast<int64_t>(i) == bos_position_) {
      row[i] = data_.bos();
    } else if (i == 0 && random_first_) {
      const uint64_t n_text = static_cast<uint64_t>(data_.n_vocab()) - Vocabulary::kFirstByte;
      row[i] = static_cast<int64_t>(Vocabulary::kFirstByte + below(n_text, mix(random)));
    } else {
      while (!bos_at_documents_ && part[at] == data_.bos()) at = step(at);
      row[i] = part[at];
      at = step(at);
    }
  }
}

}  // namespace sinkscope::train
