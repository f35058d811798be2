// Many runs of one kind: every combination of some keys' values, one folder each; then one table and pictures of them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/run_config.h"
#include "training/telemetry.h"

namespace sinkscope::train {

struct SweepRun {
  std::string name;                                        // of its folder: "attention=sigmoid,seed=2"
  std::string group;                                       // the same without the seed
  RunConfig config;
};

struct Sweep {
  std::string title;
  std::vector<SweepRun> runs;
};

// A TOML file: title, the keys of a run, and [grid] with lists of values ("model.attention" = ["softmax", "sigmoid"]), or
// [[variants]], tables of single values that are tried one by one; both together multiply. Throws InputError as read_run_config().
Sweep read_sweep(const std::string& path);

// Of the runs that are finished: one markdown table, means over seeds with the least and the largest, and by SVG the curves over
// tokens of `alpha`, `sink_rate`, `loss` and the residual peak. Written beside the runs: summary.md and *.svg.
void write_summary(const Sweep& sweep, const std::string& folder);

}  // namespace sinkscope::train
