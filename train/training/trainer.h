// A run: a folder with its configuration, checkpoints, measurements and, at its end, the model as GGUF.
//
//   run.toml         what is trained, whole
//   checkpoint.pt    weights, optimizer and step; replaced whole
//   telemetry.jsonl  one Measurement a line
//   model.gguf       what llama.cpp and sinkscope run, where the variant can be expressed
//   steps/           with training.exports: step-N.gguf of each measurement; probe.json, its prompts as token ids, beside
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "data/token_file.h"
#include "model/model.h"
#include "training/telemetry.h"

namespace sinkscope::train {

struct State {
  int64_t step = 0, n_step = 0, tokens = 0;
  double loss = 0, tokens_per_second = 0, seconds_left = 0;
  double gflops = 0;                          // of the model's products: 6 x active parameters x tokens, and attention's
  std::optional<Measurement> last;
};
// False: stop behind this step; a checkpoint is written.
using Watch = std::function<bool(const State&)>;

struct Outcome {
  bool finished = false;
  int64_t n_trained = 0;                      // steps of this call; 0: it had finished before
  State state;
  std::vector<Measurement> curve;
  double product_gflops = 0;                  // what a plain matrix product reaches on this machine
};

// What a user must know: of the machine, a slow BLAS; of a run, what no file will express too.
std::vector<std::string> notes_of_machine();
std::vector<std::string> notes_of(const RunConfig& config);
int threads_of(const TrainingConfig& config);

// Trains in `folder`, or goes on where its checkpoint stands: to the same bits as without a stop, for the same number of threads.
// Throws InputError for a folder of another run or that another process trains in, and for wrong data.
Outcome train(const RunConfig& config, const std::string& folder, const Watch& watch = {});

// The model of a run's folder, as its last checkpoint has it, and the tokens that it was trained on. Throws InputError.
struct LoadedRun {
  RunConfig config;
  std::unique_ptr<TokenFile> data;
  LanguageModel model;
};
LoadedRun load_run(const std::string& folder);

// Of a run's folder. Throws InputError.
std::vector<Measurement> read_telemetry(const std::string& folder);

}  // namespace sinkscope::train
