// Results that are looked at: one HTML file that works without a network, for one result or for several side by side.
// What it holds: docs/json.md.
#pragma once

#include <string>
#include <vector>

namespace sinkscope {

struct ViewOptions {
  // Files of --json, all of one command; or folders of the trainer's runs, and folders of such folders.
  std::vector<std::string> results;
  std::string out;  // HTML
};

// Makes a report of saved results. Arrays come from the file that a profile names, where it lies beside it. Returns what a reader must
// know, a sentence each. Throws UsageError where this build has no reports, or for results that cannot be compared; InputError for bad files.
std::vector<std::string> view(const ViewOptions& options);

}  // namespace sinkscope
