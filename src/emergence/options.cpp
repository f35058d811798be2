#include "sinkscope/options.h"

namespace sinkscope {

std::span<const Option<EmergenceOptions>> emergence_options() {
  using O = EmergenceOptions;
  static const Option<O> options[] = {
      {"--steps", "N,...", "steps of training, one for each checkpoint in the order given; without: the numbers in their names", &O::steps},
      {"--json", "FILE", "write the curve as JSON (docs/json.md)", &O::json},
      {"--plot", "FILE", "draw the curve as SVG (needs gnuplot)", &O::plot},
  };
  return options;
}

}  // namespace sinkscope
