#include "policy/policy.h"
#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<EvalOptions>> eval_options() {
  using O = EvalOptions;
  static const std::string policies = "policies (docs/streaming.md): recompute, " + policy::kind_names();
  static const Option<O> options[] = {
      {"--task", "NAME", "text: predict each token of TEXT; needle: a pass key at 5 depths of texts of --tokens, half and a quarter of it; lines: StreamEval, a question after each 10 lines", &O::task},
      {"--seed", "N", "of the made-up texts of --task", &O::seed},
      {"--policy", "A,B,C", policies.c_str(), &O::policies},
      {"--budget", "ROWS,...", "rows that each KV head may keep, sinks and the present chunk included", &O::budgets},
      {"--kv-budget", "BYTES,...", "in place of --budget: all that may be allocated for keys and values, as in 8MiB", &O::kv_budgets},
      {"--sinks", "N,...", "of policy streaming: first rows that are never dropped", &O::sinks},
      {"--protect", "ROWS", "rows that no policy but window drops and no type rounds: first:N, sinkmap:FILE (of profile --sinkmap), none; auto: first:4 for types coarser than f16", &O::protect},
      {"--sinkmap", "FILE", "of policies sinkmap and duo: file of profile --sinkmap, calibrated by calibrate", &O::sink_map},
      {"--duo-heads", "FILE", "of policy duo, in place of --sinkmap: DuoAttention's full_attention_heads.tsv, a line for each layer, a number for each KV head", &O::duo_heads},
      {"--positions", "MODE", "where kept rows stand: cache (side by side), gaps (where they were), auto (the policy's own)", &O::positions},
      {"--tokens", "N", "tokens of the text, BOS included; 0: all", &O::tokens},
      {"--skip", "N", "tokens at the start of the text that are read but count for nothing", &O::skip},
      {"--alone", "", "without keeping everything too, which takes memory and time: nothing is compared with it", &O::alone},
      {"--chunk", "N", "tokens to make room for and run at a time; 1 is StreamingLLM to the letter", &O::chunk},
      {"--bos", "MODE", "BOS before the text: auto (as the tokenizer says), always, never", &O::bos},
      {"--kv-type", "TYPE,...", "types of kept keys and values: f32, f16, q8c, q4c (keys by channel, values by row), q8_0, q4_0", &O::kv_types},
      {"--threads", "N", "threads; 0: one for each core", &O::threads},
      {"--isa", "NAME", "instruction set of the attention kernel: auto, avx512, avx2, sse4, neon, generic", &O::isa},
      {"--no-blas", "", "long matrix products without OpenBLAS", &O::no_blas},
      {"--resume", "FILE", "write the state there now and then; the same command goes on from it", &O::resume},
      {"--json", "FILE", "write the results as JSON (docs/json.md)", &O::json},
      {"--report", "FILE", "write a report that a browser shows, without a network: one HTML file", &O::report},
      {"--plot", "FILE", "draw the results as SVG: perplexity over position, quality over bytes (needs gnuplot)", &O::plot},
  };
  return options;
}

}  // namespace sinkscope
