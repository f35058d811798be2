// --arrays: the accumulators of every prompt, in a safetensors file.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/safetensors.h"
#include "measure/recorder.h"

namespace sinkscope::profile_run {

// [prompt, layer, head, ...], padded with NaN (integers: -1; counts: 0) where a prompt is shorter than the longest,
// a layer has fewer heads or was not measured.
class ArraysFile {
 public:
  struct Size {
    int n_prompt, n_layer, n_head, n_token;
  };
  // Opens the file at once. `maps`: layers and heads of the array "map".
  ArraysFile(const std::string& path, Size size, std::vector<std::pair<int, int>> maps,
             const std::map<std::string, std::string>& metadata);
  void add(const measure::Recorder& prompt);
  AtomicFile& file() { return file_.file(); }  // to commit

 private:
  template <class To, class Value>
  void add_array(const char* name, const measure::Recorder& prompt, To missing, int n_column, const Value& value);

  Size size_;
  std::vector<std::pair<int, int>> maps_;
  io::SafetensorsWriter file_;
  int n_done_ = 0;
};

}  // namespace sinkscope::profile_run
