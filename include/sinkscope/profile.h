// Which tokens of a model are attention sinks, in which layers and heads, how strong.
// Formulas and sources: docs/metrics.md. The JSON of a profile: docs/json.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sinkscope/session.h"

namespace sinkscope {

// What is run, and how: the same for all commands that look at prompts.
struct PromptOptions {
  std::string model;                    // GGUF file, or a name of scripts/fetch-model
  std::vector<std::string> texts;       // files; "-" is standard input
  std::string tokens;                   // JSON file: prompts as arrays of token ids, used as they are
  int length = 64;                      // tokens of a prompt, BOS included; 0: each text is one prompt
  int prompts = 100;                    // at most so many, evenly over the texts; 0: all
  std::string bos = "auto";             // auto (as the tokenizer says), always, never
  float epsilon = 0.3f;                 // a head sinks where its mean attention is above
  int min_rows = 16;                    // rows that must see a position before it may be called a sink
  int threads = 0;                      // 0: one for each core
  int batch = 512;                      // tokens that go through the graph at once
  int context = 0;                      // longer prompts are cut to so many tokens; 0: never
  std::string kv_type = "f16";          // of llama.cpp's cache
  std::string isa = "auto";             // instruction set of the kernel
  int gpu_layers = 0;                   // passed on to llama.cpp
  bool no_blas = false;                 // matrix products without OpenBLAS
  uint32_t seed = 1;                    // of whatever is drawn at random
};

struct ProfileOptions : PromptOptions {
  std::vector<std::string> baselines;   // control prompts: random, repeat
  // Files to write; all of them appear, or none does.
  std::string json;                     // the profile
  std::string sink_map;
  std::string arrays;                   // safetensors, the accumulators of every prompt
  std::vector<std::string> maps;        // "layer:head": whole maps into the arrays and the report
  std::string report;                   // HTML: docs/json.md says what it holds
  std::string svg;                      // pictures
};

struct Interval {
  double low = 0, high = 0;
};

// Vectors are by position. Rates are per cent of layers and heads, means over prompts.
struct SinkRate {
  double first = 0;
  double null = 0;                       // the same when attention is uniform over the visible keys
  std::optional<Interval> first_ci95;    // bootstrap over prompts; from 2 prompts on
  std::vector<double> by_position, null_by_position;
  std::vector<double> alpha_by_position, uniform_alpha_by_position;  // mean attention of the rows that see it
  std::vector<double> sum_by_position;    // cumulative attention: sum over rows, mean over heads
  std::vector<double> share_by_position;  // of all attention mass on keys
};

// Mass on the first n keys, over the last 64 rows of each prompt; boost is against uniform attention.
struct FirstShare {
  std::vector<int> n;                    // 1, 4, 8
  int last_rows = 0;                     // 64, or the length of shorter prompts
  std::vector<double> share, uniform, boost;
  std::vector<Interval> share_ci95;      // bootstrap over prompts; empty for one prompt
};

// Learned sinks, where a model has them: a column of their own, with a logit and without a value.
struct LearnedSink {
  double alpha = 0;                      // mean share of the rows' mass, over the heads of layers that have them
  double sink_rate = 0;                  // per cent of those heads whose mean share is above epsilon
};

struct HeadProfile {
  int head = 0;
  double alpha_first = 0;                // mean over prompts
  double sink_rate_first = 0;
  double entropy = 0;                    // nats, mean over rows
  double strongest_is_first = 0;         // per cent of rows whose strongest key is the first (%FirstAttn)
  double first_share = 0;                // mass on the first key over the last 64 rows
  double learned_sink_mass = 0;          // mean over rows
};

struct LayerProfile {
  int layer = 0;
  bool measured = false;                 // false: no attention that the device could take
  double sink_rate_first = 0, first_share = 0, entropy = 0, strongest_is_first = 0;
  bool learned_sink = false;
  std::vector<HeadProfile> heads;
};

struct LayerHead {
  int layer = 0, head = 0;
  double alpha = 0;                      // mean over prompts
};

// A position on which more than 25 % of heads sink.
struct Sink {
  int position = 0, token = -1;          // the token most prompts have there
  std::string text;
  bool special = false;                  // no word of text: BOS, [SEP]
  double token_share = 0;                // of prompts that have it there
  double sink_rate = 0, alpha = 0;
  std::optional<Interval> sink_rate_ci95;  // bootstrap over the prompts that reach the position
  std::vector<LayerHead> heads;          // that sink in at least half of the prompts
};

// A token on which more than 25 % of heads sink, wherever it stands behind the first position.
struct SinkToken {
  int token = -1;
  std::string text;
  bool special = false;                  // no word of text
  int n = 0;                             // occurrences with enough rows
  double sink_rate = 0;
};

struct Baseline {
  std::string kind;                      // random or repeat
  SinkRate sink_rate;
};

struct RunInfo {
  float epsilon = 0;
  int min_rows = 0;
  int length = 0;                        // of the longest prompt
  int shortest = 0;
  int n_prompt = 0;
  int64_t n_token = 0;
  std::string bos, kv_type, isa;
  int threads = 0, batch = 0;
  uint32_t seed = 0;
  double seconds = 0;                    // of running the prompts, without loading
  double tokens_per_second = 0;
  int64_t peak_rss_bytes = 0;            // of the process
};

struct PromptTokens {
  std::vector<int> tokens;
  std::vector<std::string> texts;        // of the tokens
  std::vector<bool> special;             // they are no words of text
};

struct Profile {
  ModelInfo model;
  std::string sha256;                    // of the model's file
  RunInfo run;
  std::vector<std::pair<int, int>> maps; // layers and heads of --maps
  std::string arrays;                    // name of the file of --arrays, without its folder
  std::vector<PromptTokens> prompts;     // without control prompts
  SinkRate sink_rate;
  FirstShare first;
  double mass = 0;                       // mean sum of a row's weights on keys: 1, less what learned sinks take; of sigmoid any number
  double strongest_is_first = 0;         // %FirstAttn over all
  std::optional<Interval> strongest_is_first_ci95;
  std::optional<LearnedSink> learned_sink;
  std::vector<LayerProfile> layers;
  std::vector<Sink> sinks;
  std::vector<SinkToken> tokens;
  std::vector<Baseline> baselines;
  std::vector<std::string> notes;        // what a reader must know, a sentence each

  int n_head() const;                    // that were measured, over all layers
  std::string answer() const;            // the result in one sentence
};

// What is going on, for a progress bar: tokens of all prompts.
using Progress = std::function<void(const std::string& what, int64_t done, int64_t total)>;

// Throws UsageError for options that cannot be, InputError for bad files, texts and machines.
Profile profile(const ProfileOptions& options, const Progress& progress = {});

std::string to_json(const Profile& profile);          // sinkscope.profile/1
std::string to_sink_map_json(const Profile& profile); // sinkscope.sinkmap/1

}  // namespace sinkscope
