#include "io/checked.h"

#include <fmt/format.h>

#include "io/sha256.h"
#include "sinkscope/error.h"

namespace sinkscope::io {
namespace {

constexpr size_t kDigits = 64;

}  // namespace

void write_checked(AtomicFile& file, std::string_view schema, std::string_view body) {
  file.write(fmt::format("{} {}\n", schema, sha256(body)));
  file.write(body);
  file.commit();
}

std::string_view checked_body(std::string_view text, std::string_view schema, const std::string& path, std::string_view wanted) {
  const std::string head = fmt::format("{} ", schema);
  const size_t begin = head.size() + kDigits + 1;
  if (!text.starts_with(head) || text.size() < begin) throw InputError(fmt::format("'{}' is no {}", path, wanted));
  const std::string_view body = text.substr(begin);
  if (text.substr(head.size(), kDigits) != sha256(body))
    throw InputError(fmt::format("'{}' is damaged: its bytes are not those that were written; give another file", path));
  return body;
}

}  // namespace sinkscope::io
