// The options of a profile, described once: help, schemas and captions read this table.
#pragma once

#include <span>
#include <string>
#include <variant>
#include <vector>

#include "sinkscope/profile.h"

namespace sinkscope {

struct Option {
  const char* flag;
  const char* value;  // what stands behind the flag in help; "" for a switch
  const char* text;
  std::variant<std::string ProfileOptions::*, int ProfileOptions::*, float ProfileOptions::*, bool ProfileOptions::*,
               uint32_t ProfileOptions::*, std::vector<std::string> ProfileOptions::*>
      field;
};

std::span<const Option> profile_options();

}  // namespace sinkscope
