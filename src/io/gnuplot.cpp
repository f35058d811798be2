#include "io/gnuplot.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include <fmt/format.h>
#include <unistd.h>

#include "sinkscope/error.h"

namespace sinkscope::io {
namespace {

// A file that goes when it is no longer needed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content) {
    path_ = (std::filesystem::temp_directory_path() / "sinkscope-XXXXXX").string();
    const int file = mkstemp(path_.data());
    if (file >= 0) close(file);
    if (file < 0 || !(std::ofstream(path_) << content)) throw InputError(fmt::format("cannot write '{}'; set TMPDIR to a folder with room", path_));
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

void check_gnuplot() {
  if (std::system("gnuplot --version > /dev/null 2>&1") != 0)
    throw InputError("--plot needs the program gnuplot, which is missing; install it (Debian: gnuplot-nox), or draw from --json");
}

std::string svg_of(const std::string& script) {
  const TemporaryFile file(script);
  const std::unique_ptr<FILE, int (*)(FILE*)> gnuplot(popen(fmt::format("gnuplot '{}' 2>/dev/null", file.path()).c_str(), "r"), &pclose);
  std::string svg;
  char part[4096];
  for (size_t n; gnuplot && (n = std::fread(part, 1, sizeof part, gnuplot.get())) > 0;) svg.append(part, n);
  if (svg.find("</svg>") == std::string::npos) throw InputError("gnuplot did not draw the results; see whether it works, or draw from --json");
  return svg;
}

}  // namespace sinkscope::io
