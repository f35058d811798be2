// The options of each command, described once: help, schemas and captions read these tables.
#pragma once

#include <span>
#include <string>
#include <variant>
#include <vector>

#include "sinkscope/ablate.h"
#include "sinkscope/calibrate.h"
#include "sinkscope/denoise.h"
#include "sinkscope/emergence.h"
#include "sinkscope/eval.h"
#include "sinkscope/explain.h"
#include "sinkscope/profile.h"
#include "sinkscope/report.h"
#include "sinkscope/stream.h"

namespace sinkscope {

template <class Options>
struct Option {
  const char* flag;
  const char* value;  // what stands behind the flag in help; "" for a switch
  const char* text;
  std::variant<std::string Options::*, int Options::*, float Options::*, bool Options::*, uint32_t Options::*,
               std::vector<std::string> Options::*, std::vector<int> Options::*>
      field;
};

std::span<const Option<PromptOptions>> prompt_options();
std::span<const Option<ProfileOptions>> profile_options();
std::span<const Option<ExplainOptions>> explain_options();
std::span<const Option<EmergenceOptions>> emergence_options();
std::span<const Option<AblateOptions>> ablate_options();
std::span<const Option<DenoiseOptions>> denoise_options();
std::span<const Option<CalibrateOptions>> calibrate_options();
std::span<const Option<EvalOptions>> eval_options();
std::span<const Option<StreamOptions>> stream_options();
std::span<const Option<ViewOptions>> view_options();

}  // namespace sinkscope
