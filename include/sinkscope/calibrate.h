// What each KV head loses when it may look back less far: measured on a text, one head at a time, and stored in a sink map.
// The JSON: docs/json.md. Who uses it: policies sinkmap and duo, docs/streaming.md.
#pragma once

#include <string>
#include <vector>

#include "sinkscope/profile.h"
#include "sinkscope/session.h"

namespace sinkscope {

struct CalibrateOptions {
  std::string model;                  // GGUF file, or a name of scripts/fetch-model
  std::string text;                   // file; "-" is standard input
  std::string sink_map;               // file of profile --sinkmap, which the measurement is added to
  std::vector<int> windows = {64, 256};  // rows that the shortened head has, sinks and the present chunk included
  int tokens = 1024;                  // of the text, BOS included; 0: all
  int chunk = 32;                     // tokens that are evicted for and run at a time
  std::string bos = "auto";           // auto (as the tokenizer says), always, never
  int threads = 0;                    // 0: one for each core
  std::string isa = "auto";
  bool no_blas = false;
};

struct CalibratedHead {
  int layer = 0, head_kv = 0;
  std::vector<double> loss, kl;       // [window] nats for each token: rise of the negative log likelihood, divergence from what all rows predict
  double far_mass = 0;                // attention to keys that are neither among the first 64 nor the last 256, mean over query heads and rows
};

struct Calibration {
  ModelInfo model;
  std::vector<int> windows;
  int n_token = 0;
  double ppl = 0;                     // with all rows
  std::vector<CalibratedHead> heads;  // of layers without a sliding window
};

// After each head the sink map is written anew: the same call goes on where one was interrupted. Throws UsageError for options
// that cannot be, InputError for bad files, texts, models, and a sink map of another model.
Calibration calibrate(const CalibrateOptions& options, const Progress& progress = {});

}  // namespace sinkscope
