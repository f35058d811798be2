// sinkscope.training/1: runs of the trainer, as one document.
#pragma once

#include <string>
#include <vector>

namespace sinkscope::report {

// Of folders with run.toml and telemetry.jsonl (docs/training.md), and folders of such folders. Throws InputError.
std::string training_json(const std::vector<std::string>& folders);

}  // namespace sinkscope::report
