#include "profile/outputs.h"

#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sinkscope/error.h"
#include "sinkscope/models.h"

namespace sinkscope::profile_run {
namespace {

namespace fs = std::filesystem;

bool same_file(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  std::error_code error;
  const auto whole = [&](const std::string& path) { return fs::weakly_canonical(fs::absolute(path, error), error); };
  return whole(a) == whole(b) || fs::equivalent(a, b, error);
}

}  // namespace

void check_places(const PromptOptions& o, const std::vector<std::pair<const char*, std::string>>& files) {
  std::vector<std::string> taken = o.texts;
  taken.push_back(o.tokens);
  taken.push_back(resolve_model(o.model));
  for (const auto& [option, path] : files) {
    if (path == "-") throw UsageError(fmt::format("{} - is no file; give the name of one", option));
    for (const std::string& other : taken)
      if (same_file(path, other))
        throw UsageError(fmt::format("{} '{}' is also another file of this command; give another name", option, path));
    taken.push_back(path);
  }
}

Outputs::Outputs(const ProfileOptions& options, const std::vector<std::pair<const char*, std::string>>& others) {
  std::vector<std::pair<const char*, std::string>> files = {{"--json", options.json}, {"--sinkmap", options.sink_map}, {"--arrays", options.arrays}};
  files.insert(files.end(), others.begin(), others.end());
  check_places(options, files);
  if (!options.json.empty()) json_.emplace(options.json);
  if (!options.sink_map.empty()) sink_map_.emplace(options.sink_map);
}

void Outputs::open_arrays(const ProfileOptions& options, ArraysFile::Size size,
                          const std::vector<std::pair<int, int>>& maps, const std::string& model_name) {
  if (options.arrays.empty()) return;
  arrays_.emplace(options.arrays, size, maps,
                  std::map<std::string, std::string>{{"schema", "sinkscope.arrays/1"}, {"model", model_name},
                                                     {"maps", fmt::format("{}", fmt::join(options.maps, ","))}});
}

void Outputs::commit(const Profile& profile, Companion* companion) {
  if (json_) {
    session::Json json = profile_json(profile);
    if (companion) json["explain"] = companion->json();
    json_->write(session::dumped(json));
  }
  if (sink_map_) sink_map_->write(to_sink_map_json(profile));
  std::vector<AtomicFile*> files;
  if (json_) files.push_back(&*json_);
  if (sink_map_) files.push_back(&*sink_map_);
  if (arrays_) files.push_back(&arrays_->file());
  if (companion)
    for (AtomicFile* file : companion->written()) files.push_back(file);
  commit_together(files);
}

}  // namespace sinkscope::profile_run
