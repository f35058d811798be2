#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<ExplainOptions>> explain_options() {
  using O = ExplainOptions;
  static const Option<O> options[] = {
      {"--perturb", "N", "tokens of the perturbation test, which runs them 4 times; 0: none", &O::perturb},
      {"--json", "FILE", "write the explanation as JSON (docs/json.md)", &O::explain_json},
      {"--arrays", "FILE", "write norms of hidden states, keys and values of every prompt, as safetensors", &O::explain_arrays},
      {"--report", "FILE", "write a report that a browser shows, without a network: one HTML file", &O::explain_report},
      {"--svg", "FILE", "draw lengths over layers as SVG", &O::explain_svg},
  };
  return options;
}

}  // namespace sinkscope
