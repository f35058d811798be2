// Text from diffusion models (LLaDA, Dream, RND1), and how their attention sinks move while masks become words.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sinkscope/profile.h"

namespace sinkscope {

struct DenoiseOptions {
  std::string model;                  // GGUF file, or a name of scripts/fetch-model
  std::string text;                   // file to go on from; "-" is standard input, "" none
  std::string tokens;                 // in its place, token ids: JSON, an array of one array
  int length = 64;                    // tokens to make
  int block = 32;                     // that are unmasked together, from left to right (LLaDA)
  int steps = 64;                     // for all blocks together
  float temperature = 0;              // 0: the likeliest token
  std::string remasking = "confidence";  // which masks become words first: confidence (the surest) or random
  float epsilon = 3;                  // a head sinks on a position whose column sum is so far above the mean of the others (2510.15731)
  std::string bos = "auto";
  int mask = -1;                      // token; -1: the vocabulary's own
  uint32_t seed = 1;
  int threads = 0;                    // 0: one for each core
  std::string isa = "auto";
  bool no_blas = false;
  std::string json;                   // sinkscope.denoise/1
  std::string report;                 // HTML
};

// A position that more than a quarter of all heads sink on, in one step.
struct MovingSink {
  int position = 0, token = -1;
  std::string text;
  double sink_rate = 0;               // per cent of heads
  double column_sum = 0;              // mean over heads; 1 is uniform
};

struct DenoiseStep {
  int step = 0, n_masked = 0;         // masks before the step
  std::vector<MovingSink> sinks = {};      // by position
  double centre = 0;                  // mean position of what heads sink on, every head's sinks counted
  int n_sink_head = 0;                // heads that sink anywhere
};

struct Denoised {
  ModelInfo model;
  std::string sha256 = {};
  DenoiseOptions options;
  std::vector<int> tokens = {};            // prompt and answer
  int n_prompt = 0;
  int mask = -1, threads = 0;         // as they were
  std::string text = {};              // of the answer
  int n_head = 0;                     // over all layers
  std::vector<DenoiseStep> steps = {};
  std::vector<std::string> notes = {};
};

// Throws UsageError for options that cannot be, InputError for bad files and for models that are no diffusion models.
Denoised denoise(const DenoiseOptions& options, const Progress& progress = {});

std::string to_json(const Denoised& denoised);  // sinkscope.denoise/1

}  // namespace sinkscope
