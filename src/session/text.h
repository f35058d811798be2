// Texts as commands take them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sinkscope/session.h"

namespace sinkscope::session {

// The bytes of a file, or of standard input for "-". Throws InputError.
std::string read_file(const std::string& path);

// Bytes that are no UTF-8 become U+FFFD: tokenizers refuse them.
std::string as_utf8(const std::string& text);
// How many bytes at the end begin a UTF-8 character and do not end it.
size_t unfinished(std::string_view text);
std::string read_text(const std::string& path);  // of a file, as UTF-8

// 'path', or standard input.
std::string named(const std::string& path);

// Whether --bos auto, always or never puts BOS before a text. Throws InputError where the model has none,
// UsageError for another mode.
bool wants_bos(const std::string& mode, const ModelInfo& model);

// The first tokens of a text, BOS included where `bos`: `wanted` of them, 0: all. Throws InputError where there are fewer, or
// fewer than `least`.
std::vector<int> first_tokens(const Model& model, const std::string& text, const std::string& name, bool bos, int wanted, int least);

}  // namespace sinkscope::session
