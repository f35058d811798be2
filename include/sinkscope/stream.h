// Generation without end at constant memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sinkscope/session.h"

namespace sinkscope {

struct StreamOptions {
  std::string model;                  // GGUF file, or a name of scripts/fetch-model
  std::string text;                   // file to go on from; "-" is standard input, "" none
  bool chat = false;                  // messages and answers by the model's chat template
  std::string policy = "streaming";
  int budget = 1024;                  // rows of each KV head
  std::string kv_budget;              // in bytes, as in 8MiB: in place of budget
  int sinks = 4;                      // of policy streaming: first rows that are never dropped
  std::string protect = "auto";       // rows that no policy but window drops, and no type rounds: first:N, sinkmap:FILE, none; auto: first:4 for types coarser than F16
  std::string sink_map;               // of policies sinkmap and duo: file of profile --sinkmap, calibrated
  std::string duo_heads;              // of policy duo in its place: DuoAttention's own file of heads
  std::string positions = "auto";     // cache, gaps, or the policy's own
  std::string kv_type = "f16";        // of kept keys and values: f32, f16, q8c, q4c, q8_0, q4_0
  int tokens = 0;                     // to generate; 0: until it is stopped
  float temperature = 0.8f;           // 0: the likeliest token
  float top_p = 0.95f, min_p = 0.05f; // 1 and 0: off
  uint32_t seed = 1;
  std::string bos = "auto";           // auto (as the tokenizer says), always, never
  int chunk = 32;                     // tokens of a prompt to make room for and run at a time
  int threads = 0;                    // 0: one for each core
  std::string isa = "auto";
  bool no_blas = false;
  std::string save, load;             // files: the stream as it stands, to go on exactly there
};

struct StreamState {
  int64_t position = 0;               // of the next token: all that the stream has seen
  int64_t n_unread = 0;               // tokens of a text or turn that are still to be read
  int64_t n_generated = 0;
  double rows = 0;                    // of a KV head, mean
  int64_t kv_bytes = 0;
  double tokens_per_second = 0;       // of generation
};

struct StreamEvents {
  // Between chunks of what is read. Returns false to stop: the rest is pending then.
  std::function<bool(const StreamState&)> reading;
  // Whole UTF-8 characters as they come. Returns false to stop.
  std::function<bool(std::string_view text, const StreamState&)> text;
  // The next message of a chat; none ends it.
  std::function<std::optional<std::string>()> message;
  // What a reader must know, a sentence each, before the text.
  std::function<void(const std::string&)> note;
};

// Throws UsageError for options that cannot be, InputError for bad files and models.
StreamState stream(const StreamOptions& options, const StreamEvents& events);

}  // namespace sinkscope
