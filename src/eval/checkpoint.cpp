#include "eval/checkpoint.h"

#include <filesystem>
#include <type_traits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/checked.h"
#include "io/sha256.h"
#include "session/text.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "sinkscope/options.h"

namespace sinkscope::eval_run {
namespace {

using nlohmann::json;

constexpr const char* kSchema = "sinkscope.eval-state/2";
constexpr std::chrono::seconds kBetween{3};
constexpr std::string_view kWithoutEffect[] = {"--json", "--plot", "--resume", "--threads"};

// All options as they stand in a command.
std::string described(const EvalOptions& options) {
  std::string text;
  for (const Option<EvalOptions>& option : eval_options()) {
    if (std::ranges::find(kWithoutEffect, option.flag) != std::end(kWithoutEffect)) continue;
    text += option.flag;
    std::visit([&](auto field) { text += fmt::format(" {} ", options.*field); }, option.field);
  }
  return text;
}

}  // namespace

Checkpoint::Checkpoint(std::string path, const EvalOptions& options, const std::string& inputs)
    : path_(std::move(path)), run_(io::sha256(described(options) + inputs)) {
  if (!path_.empty()) AtomicFile{path_};
}

json Checkpoint::read() const {
  if (path_.empty() || !std::filesystem::exists(path_)) return nullptr;
  const std::string text = session::read_file(path_);
  const auto file = json::from_cbor(io::checked_body(text, kSchema, path_, "file of --resume; give another name"));
  if (file.at("run") != run_) throw InputError(fmt::format("'{}' is of a run with other options, another model or text; give these, or another name", path_));
  return file.at("state");
}

bool Checkpoint::is_due() const { return !path_.empty() && std::chrono::steady_clock::now() - last_ >= kBetween; }

void Checkpoint::write(const json& state) {
  const std::vector<uint8_t> bytes = json::to_cbor({{"run", run_}, {"state", state}});
  AtomicFile file(path_);
  io::write_checked(file, kSchema, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  last_ = std::chrono::steady_clock::now();
}

void Checkpoint::remove() const {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove(path_, ignored);
}

}  // namespace sinkscope::eval_run
