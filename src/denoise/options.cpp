#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<DenoiseOptions>> denoise_options() {
  using O = DenoiseOptions;
  static const Option<O> options[] = {
      {"--tokens", "FILE", "the prompt as token ids, used as they are: JSON, an array of one array", &O::tokens},
      {"--length", "N", "tokens to make", &O::length},
      {"--block", "N", "tokens that are unmasked together, from left to right", &O::block},
      {"--steps", "N", "runs over the text, for all blocks together", &O::steps},
      {"--temperature", "X", "0: the likeliest token", &O::temperature},
      {"--remasking", "WAY", "which masks become words first: confidence (the surest) or random", &O::remasking},
      {"--epsilon", "X", "a head sinks on a position whose column sum is so far above the mean of the others", &O::epsilon},
      {"--bos", "MODE", "BOS before the prompt: auto (as the tokenizer says), always, never", &O::bos},
      {"--mask", "TOKEN", "the mask token; -1: the vocabulary's own", &O::mask},
      {"--seed", "N", "of the sampler", &O::seed},
      {"--threads", "N", "threads; 0: one for each core", &O::threads},
      {"--isa", "NAME", "instruction set of the attention kernel: auto, avx512, avx2, sse4, neon, generic", &O::isa},
      {"--no-blas", "", "long matrix products without OpenBLAS", &O::no_blas},
      {"--json", "FILE", "write steps, sinks and text as JSON (docs/json.md)", &O::json},
      {"--report", "FILE", "write a report that a browser shows, without a network: one HTML file", &O::report},
  };
  return options;
}

}  // namespace sinkscope
