#include "io/safetensors.h"

#include <bit>

#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::io {

static_assert(std::endian::native == std::endian::little, "safetensors is little endian");

SafetensorsWriter::SafetensorsWriter(std::string path, const std::vector<ArraySpec>& arrays,
                                     const std::map<std::string, std::string>& metadata)
    : file_(std::move(path)) {
  nlohmann::ordered_json header;
  header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const ArraySpec& a : arrays) {
    uint64_t size = 4;
    for (const int64_t n : a.shape) size *= static_cast<uint64_t>(n);
    header[a.name] = {{"dtype", a.type}, {"shape", a.shape}, {"data_offsets", {offset, offset + size}}};
    places_[a.name] = {offset, offset + size};
    offset += size;
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  file_.write({reinterpret_cast<const char*>(&length), sizeof length});
  file_.write(text);
  for (auto& [name, place] : places_) place = {place.begin + sizeof length + length, place.end + sizeof length + length};
  if (offset > 0) file_.write_at(sizeof length + length + offset - 1, std::string_view("\0", 1));  // its full size
}

void SafetensorsWriter::write_bytes(const std::string& name, int64_t first_element, std::string_view bytes) {
  const Place& place = places_.at(name);
  const uint64_t begin = place.begin + 4 * static_cast<uint64_t>(first_element);
  if (begin + bytes.size() > place.end) throw InternalError("array '" + name + "' is smaller than what is written to it");
  file_.write_at(begin, bytes);
}

}  // namespace sinkscope::io
