// Many runs of one kind: every combination of some keys' values, one folder each; then one table and pictures of them.
#pragma once

#include <map>
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
  std::map<std::string, int> lines;                        // of its keys, as in Parsed
};

struct Sweep {
  std::string title;
  bool equal_loss = false;                                 // the summary compares them at equal loss too
  std::vector<SweepRun> runs;
};

// A TOML file: title, equal_loss, the keys of a run, and [grid] with lists of values ("model.attention" = ["softmax", "sigmoid"]), or
// [[variants]], tables of single values that are tried one by one; both together multiply. Throws InputError as read_run_config().
Sweep read_sweep(const std::string& path);

// Of what the runs have measured: markdown tables, means over seeds with the least and the largest, and an SVG for each column, over
// tokens. Written beside the runs: summary.md and *.svg.
void write_summary(const Sweep& sweep, const std::string& folder);

}  // namespace sinkscope::train
