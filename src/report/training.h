// sinkscope.training/1: runs of the trainer, or checkpoints, as one document.
#pragma once

#include <string>
#include <vector>

namespace sinkscope::report {

// Of folders with run.toml and telemetry.jsonl (docs/training.md), and folders of such folders. Throws InputError.
std::string training_json(const std::vector<std::string>& folders);

// Of a `sinkscope.emergence/1`, as one run of that name; what checkpoints do not tell is null. Throws InputError where it is damaged.
std::string training_json_of_emergence(const std::string& json, const std::string& name);

}  // namespace sinkscope::report
