// The files that a profile leaves: JSON, sink map, arrays. All of them appear, or none does.
#pragma once

#include <optional>

#include "profile/arrays.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/profile.h"

namespace sinkscope::profile_run {

class Outputs {
 public:
  // Opens what needs no sizes: a place that cannot be written shows before long work. Throws UsageError where an
  // output would take the place of an input or of another output.
  explicit Outputs(const ProfileOptions& options);

  // The arrays, when they are wanted: their shape is known once the prompts are.
  void open_arrays(const ProfileOptions& options, ArraysFile::Size size, const std::vector<std::pair<int, int>>& maps,
                   const std::string& model_name);
  ArraysFile* arrays() { return arrays_ ? &*arrays_ : nullptr; }

  void commit(const Profile& profile);

 private:
  std::optional<AtomicFile> json_, sink_map_;
  std::optional<ArraysFile> arrays_;
};

}  // namespace sinkscope::profile_run
