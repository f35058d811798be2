#include "session/text.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::session {

std::string read_file(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) throw InputError(fmt::format("'{}' is a folder; give a file in it", path));
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("cannot read '{}' ({}); give a file that exists", path, std::strerror(errno)));
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string as_utf8(const std::string& text) {
  using nlohmann::json;
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
}

size_t unfinished(std::string_view text) {
  for (size_t n = 1; n <= std::min<size_t>(3, text.size()); ++n) {
    const auto c = static_cast<unsigned char>(text[text.size() - n]);
    if ((c & 0xC0) == 0x80) continue;
    const size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    return length > n ? n : 0;
  }
  return 0;
}

std::string read_text(const std::string& path) { return as_utf8(read_file(path)); }

std::string named(const std::string& path) { return path == "-" ? "standard input" : "'" + path + "'"; }

bool wants_bos(const std::string& mode, const ModelInfo& model) {
  if (mode == "auto") return model.adds_bos && model.bos >= 0;
  if (mode == "never") return false;
  if (mode != "always") throw UsageError(fmt::format("--bos '{}' is unknown; use auto or always or never", mode));
  if (model.bos < 0) throw InputError(fmt::format("'{}' has no BOS token; use --bos never", model.file));
  return true;
}

std::vector<int> first_tokens(const Model& model, const std::string& text, const std::string& name, bool bos, int wanted, int least) {
  std::vector<int> tokens = model.tokenize(text);
  if (bos) tokens.insert(tokens.begin(), model.info().bos);
  const size_t n = wanted > 0 ? wanted : tokens.size(), needed = std::max<size_t>(n, least);
  if (tokens.size() < needed)
    throw InputError(fmt::format("{} has {} tokens, {} are needed; give more text or another --tokens", name, tokens.size(), needed));
  tokens.resize(n);
  return tokens;
}

}  // namespace sinkscope::session
