#include "stream/stream_file.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/checked.h"
#include "session/text.h"
#include "sinkscope/error.h"

namespace sinkscope::stream_run {
namespace {

constexpr std::string_view kSchema = "sinkscope.stream/3";

}  // namespace

void write(AtomicFile& file, const SavedStream& s) {
  nlohmann::json messages = nlohmann::json::array();
  for (const ChatMessage& m : s.messages) messages.push_back({m.role, m.content});
  const std::vector<uint8_t> bytes = nlohmann::json::to_cbor({{"model_sha256", s.model_sha256}, {"settings", s.settings}, {"pending", s.pending}, {"messages", messages},
                                                              {"memory", nlohmann::json::binary(s.memory)}});
  io::write_checked(file, kSchema, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

SavedStream read(const std::string& path) {
  const std::string text = session::read_file(path);
  const std::string_view body = io::checked_body(text, kSchema, path, "saved stream; give a file of --save");
  try {
    const auto json = nlohmann::json::from_cbor(body.begin(), body.end());
    SavedStream s{.model_sha256 = json.at("model_sha256"), .settings = json.at("settings"), .pending = json.at("pending"), .messages = {}, .memory = {}};
    for (const auto& m : json.at("messages")) s.messages.push_back({m.at(0), m.at(1)});
    s.memory = json.at("memory").get_binary();
    return s;
  } catch (const nlohmann::json::exception&) {
    throw InputError(fmt::format("'{}' is whole, but what it holds is no stream; give a file of --save", path));
  }
}

}  // namespace sinkscope::stream_run
