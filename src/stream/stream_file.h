// A stream on disk: `sinkscope.stream/3`, a line with a SHA-256, then CBOR that it is of.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sinkscope/atomic_file.h"
#include "sinkscope/session.h"

namespace sinkscope::stream_run {

struct SavedStream {
  std::string model_sha256;
  std::vector<std::pair<std::string, std::string>> settings;  // options that it can only go on with
  std::vector<int> pending;           // the last tokens, which the memory has not seen yet
  std::vector<ChatMessage> messages;  // of a chat so far
  std::vector<uint8_t> memory;        // Session::save()
};

void write(AtomicFile& file, const SavedStream& stream);
// Throws InputError for a file that is damaged or none of these.
SavedStream read(const std::string& path);

}  // namespace sinkscope::stream_run
