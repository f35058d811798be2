// Documents against their JSON schemas (docs/schemas), which are built in.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace sinkscope::report {

// `schema` as documents name theirs: "sinkscope.profile/1". Throws InputError that says which place of `file` is not as the
// schema wants it.
void check_schema(const nlohmann::json& document, const std::string& schema, const std::string& file);

}  // namespace sinkscope::report
