// A profile on the terminal.
#pragma once

#include <string>

#include "sinkscope/profile.h"
#include "terminal.h"

namespace sinkscope::cli {

std::string view(const Profile& profile, const Terminal& terminal);

}  // namespace sinkscope::cli
