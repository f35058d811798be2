#include "report/training.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include "session/model_json.h"
#include "session/text.h"
#include "sinkscope/error.h"

namespace sinkscope::report {
namespace {

namespace fs = std::filesystem;
using session::Json;

bool is_run(const fs::path& folder) { return fs::exists(folder / "run.toml") && fs::exists(folder / "telemetry.jsonl"); }

Json value_of(const toml::node& node) {
  Json json;
  node.visit([&](const auto& n) {
    if constexpr (toml::is_string<decltype(n)> || toml::is_number<decltype(n)> || toml::is_boolean<decltype(n)>) json = *n;
  });
  return json;
}

// Keys as "model.attention".
Json config_of(const fs::path& path) {
  Json config = Json::object();
  try {
    for (const auto& [section, values] : toml::parse(session::read_file(path.string()), path.string()))
      if (const toml::table* table = values.as_table())
        for (const auto& [key, value] : *table) config[fmt::format("{}.{}", section.str(), key.str())] = value_of(value);
  } catch (const toml::parse_error& e) {
    throw InputError(fmt::format("{}, line {}: this is not TOML ({}); give a folder that sinkscope-train wrote", path.string(), e.source().begin.line, e.description()));
  }
  return config;
}

Json lines_of(const fs::path& path) {
  Json lines = Json::array();
  std::istringstream text(session::read_file(path.string()));
  for (std::string one; std::getline(text, one);) {
    Json line = Json::parse(one, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number())
      throw InputError(fmt::format("{}, line {}: this is no measurement; give a folder that sinkscope-train wrote", path.string(), lines.size() + 1));
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string as_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

// Seeds are not; and at a constant rate a run of fewer tokens is the start of a longer one.
bool is_of_variant(const std::string& key, const Json& config) {
  return key != "training.seed" && (key != "training.tokens" || config.value("training.schedule", "") != "constant");
}

// What a run has that not all have.
std::string variant_of(const Json& config, const Json& runs) {
  std::vector<std::string> parts;
  for (const auto& [key, value] : config.items())
    if (is_of_variant(key, config) && std::ranges::any_of(runs, [&](const Json& other) { return other["config"].value(key, Json()) != value; }))
      parts.push_back(fmt::format("{}={}", key, as_text(value)));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string name_of(const fs::path& folder) {
  const fs::path whole = fs::weakly_canonical(folder);
  return whole.filename().string();
}

}  // namespace

std::string training_json(const std::vector<std::string>& folders) {
  std::vector<std::pair<std::string, fs::path>> found;  // name and place
  std::vector<std::string> titles;
  for (const std::string& folder : folders) {
    titles.push_back(name_of(folder));
    if (is_run(folder)) {
      found.emplace_back(titles.back(), folder);
      continue;
    }
    const size_t before = found.size();
    for (const auto& entry : fs::directory_iterator(folder))
      if (is_run(entry.path())) found.emplace_back((folders.size() > 1 ? titles.back() + "/" : "") + entry.path().filename().string(), entry.path());
    if (found.size() == before)
      throw InputError(fmt::format("'{}' holds no run.toml and telemetry.jsonl, nor does any folder in it; give folders that sinkscope-train wrote", folder));
    std::sort(found.begin() + static_cast<std::ptrdiff_t>(before), found.end());
  }
  Json runs = Json::array();
  for (const auto& [name, place] : found) {
    const Json config = config_of(place / "run.toml");
    runs.push_back({{"name", name}, {"variant", ""}, {"seed", config.value("training.seed", Json())}, {"parameters", nullptr}, {"config", config}, {"lines", lines_of(place / "telemetry.jsonl")}});
  }
  for (Json& run : runs) run["variant"] = variant_of(run["config"], runs);
  return session::dumped({{"schema", "sinkscope.training/1"}, {"title", fmt::format("{}", fmt::join(titles, ", "))}, {"runs", runs}});
}

std::string training_json_of_emergence(const std::string& json, const std::string& name) {
  try {
    const Json emergence = Json::parse(json);
    Json lines = Json::array();
    for (const Json& point : emergence.at("points")) {
      Json line = {{"strongest", point.at("strongest").at("alpha")}, {"top_ratio", Json::array()}, {"value_ratio", Json::array()}};
      for (const char* told : {"step", "sink_rate", "sink_null", "alpha", "alpha_null", "mass", "norm_ratio"}) line[told] = point.at(told);
      for (const char* untold : {"tokens", "loss", "validation", "place", "place_rate", "place_alpha", "gated_alpha"}) line[untold] = nullptr;
      lines.push_back(std::move(line));
    }
    const Json run = {{"name", name}, {"variant", ""}, {"seed", nullptr}, {"parameters", nullptr}, {"config", Json::object()}, {"lines", lines}};
    return session::dumped({{"schema", "sinkscope.training/1"}, {"title", emergence.at("answer")}, {"runs", Json::array({run})}});
  } catch (const Json::exception&) {
    throw InputError(fmt::format("'{}' is no whole sinkscope.emergence/1; give a file that sinkscope emergence --json wrote", name));
  }
}

}  // namespace sinkscope::report
