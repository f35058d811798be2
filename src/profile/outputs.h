// The files that a profile leaves: JSON, sink map, arrays. All of them appear, or none does.
#pragma once

#include <optional>

#include "profile/arrays.h"
#include "profile/run.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/profile.h"

namespace sinkscope::profile_run {

// Throws UsageError where one of these options' files is an input, or another one's, or no file.
void check_places(const PromptOptions& options, const std::vector<std::pair<const char*, std::string>>& files);

class Outputs {
 public:
  // Opens what needs no sizes: a place that cannot be written shows before long work. Throws UsageError where an
  // output would take the place of an input or of another output; `others` are options and files that somebody else writes.
  explicit Outputs(const ProfileOptions& options, const std::vector<std::pair<const char*, std::string>>& others = {});

  // The arrays, when they are wanted: their shape is known once the prompts are.
  void open_arrays(const ProfileOptions& options, ArraysFile::Size size, const std::vector<std::pair<int, int>>& maps,
                   const std::string& model_name);
  ArraysFile* arrays() { return arrays_ ? &*arrays_ : nullptr; }

  // `companion` may be null.
  void commit(const Profile& profile, Companion* companion);

 private:
  std::optional<AtomicFile> json_, sink_map_;
  std::optional<ArraysFile> arrays_;
};

}  // namespace sinkscope::profile_run
