// The arrays of an explanation, as safetensors: docs/json.md.
#pragma once

#include <span>
#include <string>

#include "io/safetensors.h"
#include "measure/geometry.h"
#include "measure/hidden.h"
#include "measure/recorder.h"
#include "profile/run.h"

namespace sinkscope::explain_run {

class ArraysFile {
 public:
  ArraysFile(const std::string& path, const profile_run::Companion::Size& size);
  // The next prompt. What it does not have is NaN.
  void add(const measure::Recorder& attention, std::span<const measure::HiddenRecord> hidden, std::span<const measure::LayerGeometry> geometry);
  AtomicFile& file() { return file_.file(); }

 private:
  // One row of the array's last axis, of n numbers or all NaN; `index` counts rows within a prompt.
  void write(const char* name, int64_t rows_per_prompt, int64_t index, const float* values, int n);

  int n_layer_, n_head_, n_head_kv_, n_token_;
  int n_done_ = 0;
  io::SafetensorsWriter file_;
};

}  // namespace sinkscope::explain_run
