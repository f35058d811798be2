#include "sinkscope/models.h"

#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "models_json.h"  // generated from scripts/models.json
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

std::filesystem::path cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) return cache;
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home ? home : "/") / ".cache";
}

}  // namespace

std::vector<KnownModel> known_models() {
  std::vector<KnownModel> models;
  for (const auto& m : nlohmann::json::parse(kModelsJson))
    models.push_back({m.at("name"), cache_folder() / "sinkscope" / "models" / m.at("file").get<std::string>()});
  return models;
}

std::string resolve_model(const std::string& name_or_path) {
  std::error_code error;
  if (std::filesystem::exists(name_or_path, error) || (error && error != std::errc::no_such_file_or_directory)) return name_or_path;
  std::vector<std::string> names;
  for (const KnownModel& m : known_models()) {
    if (m.name != name_or_path) {
      names.push_back(m.name);
      continue;
    }
    if (std::filesystem::exists(m.path, error)) return m.path;
    throw InputError(fmt::format("model '{}' is not on this machine yet; run scripts/fetch-model {}", m.name, m.name));
  }
  throw InputError(fmt::format("there is no file '{}', and no model of that name; give a GGUF file or one of: {}",
                               name_or_path, fmt::join(names, ", ")));
}

}  // namespace sinkscope
