// The files that a profile leaves: JSON, report, picture, sink map, arrays. All of them appear, or none does.
#pragma once

#include <optional>

#include "io/places.h"
#include "profile/arrays.h"
#include "profile/run.h"
#include "report/result_files.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/profile.h"

namespace sinkscope::profile_run {

inline constexpr int kMostBands = 32;  // of a prompt's positions, in the banded sums

// Throws UsageError where one of these files is an input of the command, or another one of them, or no file.
void check_places(const PromptOptions& options, const std::vector<io::Place>& files);

class Outputs {
 public:
  // Opens what needs no sizes: a place that cannot be written shows before long work. Throws UsageError where an
  // output would take the place of an input or of another output; `others` are options and files that somebody else writes.
  explicit Outputs(const ProfileOptions& options, const std::vector<io::Place>& others = {});

  // The arrays, when they are wanted: their shape is known once the prompts are. Those of a report alone are never given a name.
  void open_arrays(const ProfileOptions& options, ArraysFile::Size size, const std::vector<std::pair<int, int>>& maps,
                   const std::string& model_name);
  ArraysFile* arrays() { return arrays_ ? &*arrays_ : nullptr; }
  // What must be recorded for the arrays.
  measure::Keep keep(const std::vector<std::pair<int, int>>& maps) const;

  // `companion` may be null.
  void commit(const Profile& profile, Companion* companion);

 private:
  report::ResultFiles results_;
  std::optional<AtomicFile> sink_map_;
  std::optional<ArraysFile> arrays_;
  bool keeps_arrays_ = false;
};

}  // namespace sinkscope::profile_run
