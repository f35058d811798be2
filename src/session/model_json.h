// What the JSON of all commands has in common.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "sinkscope/session.h"

namespace sinkscope::session {

using Json = nlohmann::ordered_json;

// Digits beyond float32 say nothing; not-a-number has no place in JSON.
Json number(double v);
Json numbers(const std::vector<double>& values);

Json model_json(const ModelInfo& model, const std::string& sha256);

// Tokens may end in the middle of a UTF-8 character: such bytes become U+FFFD.
std::string dumped(const Json& json);

}  // namespace sinkscope::session
