// What a run trains, on what, and how: a TOML file. Its keys are one table (keys()), which help, documents and errors share.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "data/token_file.h"

namespace sinkscope::train {

// A decoder, or with `diffusion` a model that sees both ways. Sizes in numbers, not bytes.
struct ModelConfig {
  std::string attention = "softmax";  // a variant of model/variants.h
  int n_layer = 4, d_model = 128, n_head = 2, n_head_kv = 2, d_head = 64, d_ff = 352;
  std::string norm = "pre";           // pre, post, sandwich (RMSNorm)
  std::string position = "rope";      // rope, learned, alibi, none
  std::string activation = "swiglu";  // swiglu, gelu
  bool tied = true;                   // output = embedding
  std::string qk_norm = "none";       // RMSNorm of each head's queries and keys: none, before RoPE (Qwen 3), behind it (Hunyuan)
  int window = 0;                     // keys that a query sees; 0: all before it
  int prefix = 0;                     // prefix language modelling: the first tokens see each other both ways
  int n_expert = 0;                   // 0: no mixture of experts
  int n_expert_used = 2, n_expert_shared = 0;
  double balance = 0.01;              // weight of the router's balance loss (Switch, 2101.03961)
  bool diffusion = false;             // masked diffusion (LLaDA, 2502.09992)
  double rope_base = 10000;
  double clip_gamma = -0.03, clip_zeta = 1;  // of clipped softmax
};

struct DataConfig {
  std::string folder;                 // made by sinkscope-train prepare
  std::string packing = "context";    // context, document, none, fixed:P, random
  int context = 256;                  // tokens
};

struct TrainingConfig {
  int64_t tokens = 8'000'000;         // to train on; whole steps
  int batch = 8;                      // contexts that go through the model at once
  int accumulate = 1;                 // such batches in a step
  double rate = 4e-3;
  std::string schedule = "constant";  // constant, cosine (to a tenth)
  int warmup = 100;                   // steps
  double weight_decay = 0.1, clip = 1, beta1 = 0.9, beta2 = 0.95;
  std::string precision = "f32";      // f32, bf16 (products alone)
  uint32_t seed = 1;
  int threads = 0;                    // 0: one for each core
  int checkpoint = 500;               // steps between checkpoints
  int measurements = 24;              // of the sinks while training, spread evenly over the logarithm of steps
  int probe = 32;                     // contexts that are measured
  bool exports = false;               // a GGUF file at each measurement
};

struct RunConfig {
  ModelConfig model;
  DataConfig data;
  TrainingConfig training;
};

// What must be so for a key to be read.
struct Condition {
  const char* what;
  bool (*holds)(const RunConfig&);
};

// One key: where it is, what it is, what is allowed.
struct Key {
  using Field = std::variant<bool& (*)(RunConfig&), int& (*)(RunConfig&), int64_t& (*)(RunConfig&), uint32_t& (*)(RunConfig&), double& (*)(RunConfig&), std::string& (*)(RunConfig&)>;
  const char *section, *name;
  Field field;
  double least = 0, most = 1e12;             // of numbers
  std::vector<std::string> allowed = {};     // of words, "fixed:P" for any P; empty: any
  const char* what;
  const Condition* read_with = nullptr;      // null: always
};
std::span<const Key> keys();
std::string allowed(const Key& key);         // "use ..."
std::string default_of(const Key& key);      // as TOML
std::string shortest(double x);              // that TOML reads back as x

// A file's bytes. Throws InputError; `of` is what the file describes, "a run".
std::string read_toml(const std::string& path, const char* of);

struct Parsed {
  RunConfig config;
  std::map<std::string, int> lines;          // of the keys that were given ("model.heads"); 0: on the command line
};
// Each key by itself; what goes together is for check(). `name` stands for the file, `others` are keys at the top that are somebody else's. Throws InputError that names
// file, line, key and what is allowed.
Parsed parse_run_config(const std::string& text, const std::string& name, std::span<const char* const> others = {});
// Of a file, with `settings` ("training.seed=2") in place of what it says; check()ed. Throws as these do.
Parsed read_run_config(const std::string& path, std::span<const std::string> settings = {});
// As a TOML text that parse_run_config() reads back.
std::string to_toml(const RunConfig& config);

// Sets one key from its text, as "model.attention" and "sigmoid" of a sweep. Throws UsageError.
void set_key(RunConfig& config, const std::string& key, const std::string& value);

// What goes together and what does not. These throw InputError, with the line of the first key that the sentence names where `lines` has it.
void check(const RunConfig& config, const std::string& name, const std::map<std::string, int>& lines = {});
// That one of `configs` reads each key in `lines`, or has its default.
void check_given(std::span<const RunConfig> configs, const std::string& name, const std::map<std::string, int>& lines);
// The tokens of data.folder, and that they and this machine's memory suffice.
std::unique_ptr<TokenFile> open_data(const RunConfig& config, const std::string& name, const std::map<std::string, int>& lines);
void check_data(const RunConfig& config, const TokenFile& data, const std::string& name, const std::map<std::string, int>& lines);

// Small models by what they show: their names, and what a preset changes of a config.
struct Preset {
  const char *name, *what;
  void (*apply)(RunConfig&);
};
std::span<const Preset> presets();

}  // namespace sinkscope::train
