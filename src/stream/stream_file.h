// A stream on disk: `sinkscope.stream/1`, a line with a SHA-256, then CBOR that it is of.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sinkscope/session.h"

namespace sinkscope::stream_run {

struct SavedStream {
  std::string model_sha256;
  int pending = -1;                   // the last token, which the memory has not seen yet; -1: none
  std::vector<ChatMessage> messages;  // of a chat so far
  std::vector<uint8_t> memory;        // Session::save()
};

// Whole or not at all.
void write(const std::string& path, const SavedStream& stream);
// Throws InputError for a file that is damaged, none of these, or of another model.
SavedStream read(const std::string& path, const std::string& model_sha256);

}  // namespace sinkscope::stream_run
