// The files that show a command's result: the JSON itself, a report, a picture.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/places.h"
#include "sinkscope/atomic_file.h"

namespace sinkscope::report {

class ResultFiles {
 public:
  // Names of files; empty: none.
  struct Names {
    std::string json, report, svg;
  };
  // Throws UsageError where a report is wanted of a build that has none.
  explicit ResultFiles(Names names);
  std::vector<io::Place> places() const;

  // Opens them at once, so that a place that cannot be written shows before long work.
  void open();
  // `json` is the document. `arrays`: the safetensors file that belongs to it, or empty.
  void write(const std::string& model_name, const std::string& json, const std::string& arrays = "");
  // To commit.
  std::vector<AtomicFile*> written();

 private:
  Names names_;
  std::optional<AtomicFile> json_, report_, svg_;
};

}  // namespace sinkscope::report
