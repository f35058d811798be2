#include "policy/policy.h"
#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<StreamOptions>> stream_options() {
  using O = StreamOptions;
  static const std::string policies = "which rows of the memory stay (docs/streaming.md): " + policy::kind_names();
  static const Option<O> options[] = {
      {"--chat", "", "talk: lines of standard input are messages, the model's chat template makes them turns", &O::chat},
      {"--tokens", "N", "tokens to generate; 0: until it is stopped", &O::tokens},
      {"--policy", "NAME", policies.c_str(), &O::policy},
      {"--budget", "ROWS", "rows that each KV head may keep, sinks included", &O::budget},
      {"--kv-budget", "BYTES", "in place of --budget: all that may be allocated for keys and values, as in 8MiB", &O::kv_budget},
      {"--sinks", "N", "of policy streaming: first rows that are never dropped", &O::sinks},
      {"--protect", "ROWS", "rows that no policy but window drops and no type rounds: first:N, sinkmap:FILE (of profile --sinkmap), none; auto: first:4 for types coarser than f16", &O::protect},
      {"--sinkmap", "FILE", "of policies sinkmap and duo: file of profile --sinkmap, calibrated by calibrate", &O::sink_map},
      {"--duo-heads", "FILE", "of policy duo, in place of --sinkmap: DuoAttention's full_attention_heads.tsv, a line for each layer, a number for each KV head", &O::duo_heads},
      {"--positions", "MODE", "where kept rows stand: cache (side by side), gaps (where they were), auto (the policy's own)", &O::positions},
      {"--kv-type", "TYPE", "type of kept keys and values: f32, f16, q8c, q4c (keys by channel, values by row), q8_0, q4_0", &O::kv_type},
      {"--temperature", "X", "of sampling; 0: always the likeliest token", &O::temperature},
      {"--top-p", "X", "sample from the likeliest tokens that have a share of X together; 1: off", &O::top_p},
      {"--min-p", "X", "sample from tokens with X times the likeliest one's probability or more; 0: off", &O::min_p},
      {"--seed", "N", "of sampling", &O::seed},
      {"--bos", "MODE", "BOS before the text: auto (as the tokenizer says), always, never", &O::bos},
      {"--save", "FILE", "at the end, write the stream as it stands", &O::save},
      {"--load", "FILE", "go on exactly where a saved stream stopped", &O::load},
      {"--chunk", "N", "tokens of a prompt to make room for and run at a time", &O::chunk},
      {"--threads", "N", "threads; 0: one for each core", &O::threads},
      {"--isa", "NAME", "instruction set of the attention kernel: auto, avx512, avx2, sse4, neon, generic", &O::isa},
      {"--no-blas", "", "long matrix products without OpenBLAS", &O::no_blas},
  };
  return options;
}

}  // namespace sinkscope
