#include "io/places.h"

#include <filesystem>

#include <fmt/format.h>

#include "sinkscope/error.h"

namespace sinkscope::io {
namespace {

namespace fs = std::filesystem;

bool same_file(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  std::error_code error;
  const auto whole = [&](const std::string& path) { return fs::weakly_canonical(fs::absolute(path, error), error); };
  return whole(a) == whole(b) || fs::equivalent(a, b, error);
}

}  // namespace

void check_places(const std::vector<std::string>& inputs, const std::vector<Place>& outputs) {
  std::vector<std::string> taken = inputs;
  for (const auto& [option, path] : outputs) {
    if (path == "-") throw UsageError(fmt::format("{} - is no file; give the name of one", option));
    for (const std::string& other : taken)
      if (same_file(path, other))
        throw UsageError(fmt::format("{} '{}' is also another file of this command; give another name", option, path));
    taken.push_back(path);
  }
}

bool make_folder(const std::string& path) {
  std::error_code error;
  const bool is_new = fs::create_directories(path, error);
  if (error) throw InputError(fmt::format("cannot make the folder '{}' ({}); give another place", path, error.message()));
  return is_new;
}

}  // namespace sinkscope::io
