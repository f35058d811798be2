// sinkscope.explain/1 before it is text.
#pragma once

#include "session/model_json.h"
#include "sinkscope/explain.h"

namespace sinkscope::explain_run {

session::Json explanation_json(const Explanation& explanation);

}  // namespace sinkscope::explain_run
