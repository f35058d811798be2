#include <algorithm>
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "io/places.h"
#include "report/html.h"
#include "report/payload.h"
#include "report/schemas.h"
#include "report/training.h"
#include "session/text.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "sinkscope/options.h"
#include "sinkscope/report.h"

namespace sinkscope {
namespace {

namespace fs = std::filesystem;
using report::Document, session::named;

constexpr const char* kSchemas[] = {"sinkscope.profile/1", "sinkscope.explain/1", "sinkscope.ablate/1", "sinkscope.eval/1", "sinkscope.denoise/1", "sinkscope.training/1"};
constexpr const char* kEmergence = "sinkscope.emergence/1";  // shown as a run of the trainer is

struct Result {
  Document document;
  std::string file, schema, model;
};

// A text of the document's, or "".
std::string text_at(const nlohmann::json& json, const char* where) {
  const nlohmann::json::json_pointer at(where);
  return json.contains(at) && json.at(at).is_string() ? json.at(at).get<std::string>() : "";
}

Result read_result(const std::string& path, std::vector<std::string>& notes) {
  Result r{.document = {.name = {}, .json = session::read_file(path)}, .file = path, .schema = {}, .model = {}};
  auto json = nlohmann::json::parse(r.document.json, nullptr, /*allow_exceptions=*/false);
  const std::string wanted = "give files of --json of profile, explain, ablate, eval, denoise or emergence, or folders of sinkscope-train";
  if (json.is_discarded()) throw InputError(fmt::format("{} is not JSON; {}", named(path), wanted));
  r.schema = text_at(json, "/schema");
  r.model = text_at(json, "/model/name");
  if (r.schema == kEmergence) {
    r.document.json = report::training_json_of_emergence(r.document.json, fs::path(path).stem().string());
    r.schema = "sinkscope.training/1";
    json = nlohmann::json::parse(r.document.json);
  }
  if (std::ranges::count(kSchemas, r.schema) == 0)
    throw InputError(fmt::format("{} {}; {}", named(path), r.schema.empty() ? "is no result of sinkscope" : fmt::format("is a '{}', which cannot be looked at", r.schema), wanted));
  report::check_schema(json, r.schema, path);
  // Beside the file, wherever it was when it was made.
  const std::string arrays = fs::path(text_at(json, "/arrays")).filename().string();
  if (arrays.empty()) return r;
  const fs::path place = fs::path(path).parent_path() / arrays;
  if (fs::exists(place)) r.document.arrays = place.string();
  else notes.push_back(fmt::format("the arrays of {} are not beside it ({} is missing): attention by token, bands and maps are left out", named(path), place.string()));
  return r;
}

// The models' names; where one comes twice, the files' names; and where these do too, numbers.
void name_documents(std::vector<Result>& results) {
  std::map<std::string, int> n_model, n_name;
  for (const Result& r : results) ++n_model[r.model];
  for (Result& r : results) {
    std::string& name = r.document.name;
    name = r.model.empty() || n_model[r.model] > 1 ? fs::path(r.file).stem().string() : r.model;
    if (const int n = ++n_name[name]; n > 1) name += fmt::format(" ({})", n);
  }
}

}  // namespace

std::vector<std::string> view(const ViewOptions& o) {
  if (o.results.empty()) throw UsageError("there is nothing to show; give files of --json, or folders of sinkscope-train");
  if (o.out.empty()) throw UsageError("the report needs a file to go to; give --out FILE.html");
  report::check_app("view");
  io::check_places(o.results, {{"--out", o.out}});
  AtomicFile out(o.out);
  std::vector<std::string> notes, folders;
  std::vector<Result> results;
  for (const std::string& path : o.results)
    if (fs::is_directory(path)) folders.push_back(path);
    else results.push_back(read_result(path, notes));
  if (!folders.empty()) results.push_back({.document = {.name = {}, .json = report::training_json(folders)}, .file = folders[0], .schema = "sinkscope.training/1", .model = {}});
  for (const Result& r : results)
    if (r.schema != results[0].schema)
      throw UsageError(fmt::format("{} is a '{}' and {} a '{}', which cannot be compared; give results of one command", named(results[0].file), results[0].schema, named(r.file), r.schema));
  name_documents(results);
  std::vector<Document> documents;
  for (Result& r : results) documents.push_back(std::move(r.document));
  out.write(report::html(report::app(), report::payload(documents)));
  out.commit();
  return notes;
}

std::span<const Option<ViewOptions>> view_options() {
  static const Option<ViewOptions> options[] = {
      {"--out", "FILE", "the report: one HTML file that a browser shows, without a network", &ViewOptions::out},
  };
  return options;
}

}  // namespace sinkscope
