// A run that was interrupted goes on: what it knew at a moment, in a file (io/checked.h, CBOR).
#pragma once

#include <chrono>
#include <string>

#include <nlohmann/json.hpp>

#include "sinkscope/eval.h"

namespace sinkscope::eval_run {

class Checkpoint {
 public:
  // An empty path: nothing is kept. `inputs`: what else than the options a result depends on. Throws InputError where the
  // path cannot be written.
  Checkpoint(std::string path, const EvalOptions& options, const std::string& inputs);

  // What was kept, or null. Throws InputError for a file of another run.
  nlohmann::json read() const;
  // Whether it is time to write again.
  bool is_due() const;
  void write(const nlohmann::json& state);
  // The run has come to its end.
  void remove() const;

 private:
  std::string path_, run_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace sinkscope::eval_run
