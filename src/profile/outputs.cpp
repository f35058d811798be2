#include "profile/outputs.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/places.h"
#include "report/payload.h"
#include "sinkscope/models.h"

namespace sinkscope::profile_run {

void check_places(const PromptOptions& o, const std::vector<io::Place>& files) {
  std::vector<std::string> inputs = o.texts;
  inputs.push_back(o.tokens);
  inputs.push_back(resolve_model(o.model));
  io::check_places(inputs, files);
}

Outputs::Outputs(const ProfileOptions& options, const std::vector<io::Place>& others) : results_({options.json, options.report, options.svg}) {
  std::vector<io::Place> files = results_.places();
  files.insert(files.end(), {{"--sinkmap", options.sink_map}, {"--arrays", options.arrays}});
  files.insert(files.end(), others.begin(), others.end());
  check_places(options, files);
  results_.open();
  if (!options.sink_map.empty()) sink_map_.emplace(options.sink_map);
}

void Outputs::open_arrays(const ProfileOptions& options, ArraysFile::Size size, const std::vector<std::pair<int, int>>& maps, const std::string& model_name) {
  if (options.arrays.empty() && options.report.empty()) return;
  keeps_arrays_ = !options.arrays.empty();
  if (!keeps_arrays_) size.n_prompt = report::n_prompt_shown(size.n_prompt, int64_t{size.n_layer} * size.n_head * size.n_token);
  const measure::Bands bands{.n = std::min(kMostBands, size.n_token), .n_position = size.n_token};
  arrays_.emplace(keeps_arrays_ ? options.arrays : options.report, keeps_arrays_ ? ArraysFile::Content::all : ArraysFile::Content::report, size, bands, maps,
                  std::map<std::string, std::string>{{"schema", "sinkscope.arrays/1"}, {"model", model_name},
                                                     {"maps", fmt::format("{}", fmt::join(options.maps, ","))}});
}

measure::Keep Outputs::keep(const std::vector<std::pair<int, int>>& maps) const {
  return {.maps = maps, .all_first_mass = keeps_arrays_, .bands = arrays_ ? arrays_->bands() : measure::Bands()};
}

void Outputs::commit(const Profile& profile, Companion* companion) {
  std::vector<AtomicFile*> files;
  if (arrays_) arrays_->finish();
  if (arrays_ && keeps_arrays_) files.push_back(&arrays_->file());
  session::Json json = profile_json(profile);
  if (companion) json["explain"] = companion->json();
  results_.write(profile.model.name, session::dumped(json), arrays_ ? arrays_->file().unfinished() : "");
  for (AtomicFile* file : results_.written()) files.push_back(file);
  if (sink_map_) {
    sink_map_->write(to_sink_map_json(profile));
    files.push_back(&*sink_map_);
  }
  if (companion)
    for (AtomicFile* file : companion->written()) files.push_back(file);
  commit_together(files);
}

}  // namespace sinkscope::profile_run
