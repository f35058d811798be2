// Models by name: real ones that scripts/fetch-model gets.
#pragma once

#include <string>
#include <vector>

namespace sinkscope {

struct KnownModel {
  std::string name, path;  // where it is, once fetched
};

// scripts/models.json; the first is the default.
std::vector<KnownModel> known_models();

// A path stays a path; a known name becomes its file. Throws InputError when the file is not there: a name says how
// to fetch it.
std::string resolve_model(const std::string& name_or_path);

}  // namespace sinkscope
