#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<PromptOptions>> prompt_options() {
  using O = PromptOptions;
  static const Option<O> options[] = {
      {"--tokens", "FILE", "prompts as token ids, used as they are: JSON, an array of arrays", &O::tokens},
      {"--length", "N", "cut texts into prompts of N tokens, BOS included; 0: each text is one prompt", &O::length},
      {"--prompts", "N", "at most N prompts, evenly over the texts; 0: all, up to 65,535", &O::prompts},
      {"--bos", "MODE", "BOS before each prompt (and encoders' [SEP] behind it): auto (as the tokenizer says), always, never", &O::bos},
      {"--epsilon", "X", "a head sinks on a position whose mean attention is above X", &O::epsilon},
      {"--min-rows", "N", "queries that must see a position before it may be called a sink", &O::min_rows},
      {"--context", "N", "cut longer prompts to N tokens; 0: never", &O::context},
      {"--batch", "N", "tokens that go through the graph at once", &O::batch},
      {"--threads", "N", "threads; 0: one for each core", &O::threads},
      {"--kv-type", "TYPE", "type of keys and values in llama.cpp's cache: f32, f16, bf16, q8_0, q4_0, ...", &O::kv_type},
      {"--isa", "NAME", "instruction set of the attention kernel: auto, avx512, avx2, sse4, neon, generic", &O::isa},
      {"--gpu-layers", "N", "layers for llama.cpp to put on a GPU; attention stays on the host (untested)", &O::gpu_layers},
      {"--no-blas", "", "long matrix products without OpenBLAS", &O::no_blas},
      {"--seed", "N", "of what is drawn at random: the bootstrap, controls", &O::seed},
  };
  return options;
}

std::span<const Option<ProfileOptions>> profile_options() {
  using O = ProfileOptions;
  static const Option<O> options[] = {
      {"--baseline", "KIND", "control prompts too: random (tokens) or repeat (one token, no BOS); once for each kind", &O::baselines},
      {"--json", "FILE", "write the profile as JSON (docs/json.md)", &O::json},
      {"--sinkmap", "FILE", "write the sink map as JSON, for cache policies and other tools", &O::sink_map},
      {"--arrays", "FILE", "write the accumulators of every prompt, as safetensors", &O::arrays},
      {"--maps", "LAYER:HEAD", "keep a whole attention map in --arrays and --report, for prompts up to 4,096 tokens; once for each map", &O::maps},
      {"--report", "FILE", "write a report that a browser shows, without a network: one HTML file", &O::report},
      {"--svg", "FILE", "draw layers, heads and positions as SVG", &O::svg},
  };
  return options;
}

}  // namespace sinkscope
