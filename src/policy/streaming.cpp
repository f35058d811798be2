#include "policy/first_and_last.h"

namespace sinkscope::policy {

// StreamingLLM (Xiao et al., 2309.17453): the first rows, which are the sinks, and the last ones. Protected rows stay too.
std::unique_ptr<Policy> streaming(const Options& options) { return std::make_unique<FirstAndLast>(options); }

}  // namespace sinkscope::policy
