#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<CalibrateOptions>> calibrate_options() {
  using O = CalibrateOptions;
  static const Option<O> options[] = {
      {"--sinkmap", "FILE", "sink map of profile --sinkmap, which what is measured is added to", &O::sink_map},
      {"--windows", "ROWS,...", "rows that the head has which is measured, sinks and the present chunk included", &O::windows},
      {"--tokens", "N", "tokens of the text, BOS included; 0: all", &O::tokens},
      {"--chunk", "N", "tokens to make room for and run at a time", &O::chunk},
      {"--bos", "MODE", "BOS before the text: auto (as the tokenizer says), always, never", &O::bos},
      {"--threads", "N", "threads; 0: one for each core", &O::threads},
      {"--isa", "NAME", "instruction set of the attention kernel: auto, avx512, avx2, sse4, neon, generic", &O::isa},
      {"--no-blas", "", "long matrix products without OpenBLAS", &O::no_blas},
  };
  return options;
}

}  // namespace sinkscope
