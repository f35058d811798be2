#include "report/payload.h"

#include <array>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "report/coding.h"
#include "sinkscope/error.h"

namespace sinkscope::report {
namespace {

constexpr int64_t kMostAlphas = 2'500'000, kMostWeights = 70'000'000;  // of a document
constexpr int64_t kMostKeptWeights = 3'500'000;                         // of them, that are not 0: others can hardly be deflated

struct Array {
  io::ArraySpec spec;
  std::string bytes;
};

struct Payload {
  std::vector<Array> arrays;
  std::map<std::string, std::string> metadata;
};

// Returns how many prompts there are.
int64_t add_alpha(const std::string& prefix, io::SafetensorsReader& file, Payload& to) {
  const auto& shape = file.shape("column_sum", "F32", 4);
  const size_t n = shape[1] * shape[2] * shape[3];
  const int n_prompt = n_prompt_shown(static_cast<int>(shape[0]), static_cast<int64_t>(n));
  std::vector<float> sum(n);
  std::vector<uint32_t> n_row(n);
  std::string codes;
  for (int p = 0; p < n_prompt; ++p) {
    file.read("column_sum", static_cast<int64_t>(p * n), std::span(sum));
    file.read("column_n_row", static_cast<int64_t>(p * n), std::span(n_row));
    for (size_t i = 0; i < n; ++i) codes += static_cast<char>(n_row[i] > 0 ? alpha_code(sum[i] / static_cast<float>(n_row[i])) : 0);
  }
  to.arrays.push_back({{prefix + "alpha", "U8", {n_prompt, shape[1], shape[2], shape[3]}}, std::move(codes)});
  return n_prompt;
}

void add_bands(const std::string& prefix, io::SafetensorsReader& file, Payload& to) {
  if (!file.has("bands")) return;
  const auto& shape = file.shape("bands", "F32", 4);
  std::vector<float> bands(shape[0] * shape[1] * shape[2] * shape[3]);
  file.read("bands", 0, std::span(bands));
  std::string codes;
  for (const float b : bands) codes += static_cast<char>(alpha_code(b));
  to.arrays.push_back({{prefix + "bands", "U8", shape}, std::move(codes)});
}

// The smallest code of which no more weights than kMostKeptWeights are at least as large.
int floor_of(const std::string& codes) {
  std::array<int64_t, 256> count{};
  for (const char c : codes) ++count[static_cast<uint8_t>(c)];
  int code = 256;
  for (int64_t kept = 0; code > 1 && kept + count[code - 1] <= kMostKeptWeights; --code) kept += count[code - 1];
  return std::min(code, 255);
}

void add_maps(const std::string& prefix, io::SafetensorsReader& file, int64_t n_alpha_prompt, Payload& to) {
  if (!file.has("map")) return;
  const auto& shape = file.shape("map", "F32", 4);
  const size_t n_row = shape[1] * shape[2], n_key = shape[3];
  const auto n_prompt = std::min<int64_t>(n_alpha_prompt, std::max<int64_t>(1, kMostWeights / static_cast<int64_t>(n_row * n_key)));
  std::string codes;
  std::vector<float> row(n_key);
  for (size_t r = 0; r < n_prompt * n_row; ++r) {
    file.read("map", static_cast<int64_t>(r * n_key), std::span(row));
    for (const float w : row) codes += static_cast<char>(weight_code(w));
  }
  if (const int floor = floor_of(codes); floor > 1) {
    for (char& c : codes)
      if (static_cast<uint8_t>(c) < floor) c = 0;
    to.metadata[prefix + "map_floor"] = fmt::format("{:.6g}", weight_of(static_cast<uint8_t>(floor)));
  }
  to.arrays.push_back({{prefix + "map", "U8", {n_prompt, shape[1], shape[2], shape[3]}}, std::move(codes)});
}

// Throws where the arrays are of another document.
void check_arrays(const Document& d, const io::SafetensorsReader& file) {
  const auto json = nlohmann::json::parse(d.json);
  const auto number = [&](const char* where) {
    const nlohmann::json::json_pointer at(where);
    return json.contains(at) && json.at(at).is_number_integer() ? json.at(at).get<int64_t>() : -1;
  };
  const int64_t n_layer = number("/model/n_layer"), n_head = number("/model/n_head"), n_token = number("/run/length");
  const auto& shape = file.shape("column_sum", "F32", 4);
  bool fits = shape == std::vector{shape[0], n_layer, n_head, n_token} && shape[0] > 0 && shape == file.shape("column_n_row", "U32", 4);
  if (file.has("bands")) {
    const auto& bands = file.shape("bands", "F32", 4);
    fits &= bands == std::vector{n_layer, n_head, bands[2], bands[2]};
  }
  if (file.has("map")) {
    const auto& map = file.shape("map", "F32", 4);
    fits &= map == std::vector{shape[0], map[1], n_token, n_token};
  }
  if (!fits)
    throw InputError(fmt::format("'{}' holds arrays of {} layers, {} heads and {} positions, which are not those of '{}' ({}, {}, {}); profile once more with --json and --arrays",
                                 d.arrays, shape[1], shape[2], shape[3], d.name, n_layer, n_head, n_token));
}

}  // namespace

int n_prompt_shown(int n_prompt, int64_t n_number_per_prompt) {
  return static_cast<int>(std::clamp<int64_t>(kMostAlphas / std::max<int64_t>(n_number_per_prompt, 1), 1, std::max(n_prompt, 1)));
}

std::string payload(const std::vector<Document>& documents) {
  Payload p;
  nlohmann::json names = nlohmann::json::array();
  for (size_t i = 0; i < documents.size(); ++i) {
    const Document& d = documents[i];
    const std::string prefix = fmt::format("{}.", i);
    names.push_back(d.name);
    p.arrays.push_back({{prefix + "document", "U8", {static_cast<int64_t>(d.json.size())}}, d.json});
    if (d.arrays.empty()) continue;
    io::SafetensorsReader file(d.arrays);
    check_arrays(d, file);
    const int64_t n_prompt = add_alpha(prefix, file, p);
    add_bands(prefix, file, p);
    add_maps(prefix, file, n_prompt, p);
  }
  p.metadata["schema"] = "sinkscope.report/1";
  p.metadata["version"] = SINKSCOPE_VERSION;
  p.metadata["names"] = names.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::vector<io::ArraySpec> specs;
  for (const Array& a : p.arrays) specs.push_back(a.spec);
  std::string bytes = io::safetensors_header(specs, p.metadata);
  for (const Array& a : p.arrays) bytes += a.bytes;
  return bytes;
}

}  // namespace sinkscope::report
