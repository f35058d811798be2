#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<AblateOptions>> ablate_options() {
  using O = AblateOptions;
  static const Option<O> options[] = {
      {"--edit", "SPEC", "what to change, as in mask:positions=0 (docs/ablate.md); + joins several; once for each edit", &O::edits},
      {"--controls", "N", "for each edit, the same at N places drawn at random", &O::controls},
      {"--json", "FILE", "write the result as JSON (docs/json.md)", &O::json},
      {"--report", "FILE", "write a report that a browser shows, without a network: one HTML file", &O::report},
      {"--svg", "FILE", "draw what each edit changes as SVG", &O::svg},
  };
  return options;
}

}  // namespace sinkscope
