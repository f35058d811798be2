// --arrays: the accumulators of every prompt, in a safetensors file; and what a report reads of them.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/safetensors.h"
#include "measure/recorder.h"

namespace sinkscope::profile_run {

// [prompt, layer, head, ...], padded with NaN (integers: -1; counts: 0) where a prompt is shorter than the longest,
// a layer has fewer heads or was not measured. Over all prompts: "bands" [layer, head, query band, key band].
class ArraysFile {
 public:
  struct Size {
    int n_prompt, n_layer, n_head, n_token;
  };
  enum class Content { all, report };  // report: columns, maps and bands alone
  // Opens the file at once. Prompts behind the first Size::n_prompt go into the bands alone. `maps`: layers and heads of the array "map".
  ArraysFile(const std::string& path, Content content, Size size, measure::Bands bands, std::vector<std::pair<int, int>> maps,
             const std::map<std::string, std::string>& metadata);
  const measure::Bands& bands() const { return bands_; }
  void add(const measure::Recorder& prompt);
  // Behind the last prompt: the file is whole.
  void finish();
  AtomicFile& file() { return file_.file(); }  // to commit

 private:
  template <class To, class Value>
  void add_array(const char* name, const measure::Recorder& prompt, To missing, int n_column, const Value& value);
  void add_columns(const measure::Recorder& prompt);
  void add_rows(const measure::Recorder& prompt);
  void add_maps(const measure::Recorder& prompt);
  void add_bands(const measure::Recorder& prompt);

  Content content_;
  Size size_;
  measure::Bands bands_;
  std::vector<std::pair<int, int>> maps_;
  io::SafetensorsWriter file_;
  int n_done_ = 0;
  std::vector<double> band_sum_, band_n_pair_;  // [n_layer, n_head, n_band, n_band], [n_layer, n_band, n_band]
};

}  // namespace sinkscope::profile_run
