#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::io {

static_assert(std::endian::native == std::endian::little, "safetensors is little endian");

namespace {

constexpr uint64_t kLengthBytes = 8, kMostHeaderBytes = 100'000'000;  // the format's own limit

uint64_t bytes_of(const std::string& type) {
  if (type == "F32" || type == "I32" || type == "U32") return 4;
  return type == "U8" ? 1 : 0;
}

}  // namespace

uint64_t ArraySpec::n_element() const {
  uint64_t n = 1;
  for (const int64_t axis : shape) n *= static_cast<uint64_t>(axis);
  return n;
}

uint64_t ArraySpec::n_byte() const { return n_element() * bytes_of(type); }

std::string safetensors_header(const std::vector<ArraySpec>& arrays, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const ArraySpec& a : arrays) {
    header[a.name] = {{"dtype", a.type}, {"shape", a.shape}, {"data_offsets", {offset, offset + a.n_byte()}}};
    offset += a.n_byte();
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), kLengthBytes) + text;
}

SafetensorsWriter::SafetensorsWriter(std::string path, const std::vector<ArraySpec>& arrays,
                                     const std::map<std::string, std::string>& metadata)
    : file_(std::move(path)) {
  const std::string header = safetensors_header(arrays, metadata);
  file_.write(header);
  uint64_t offset = header.size();
  for (const ArraySpec& a : arrays) {
    places_[a.name] = {offset, offset + a.n_byte()};
    offset += a.n_byte();
  }
  if (offset > header.size()) file_.write_at(offset - 1, std::string_view("\0", 1));  // its full size
}

void SafetensorsWriter::write_bytes(const std::string& name, uint64_t first_byte, std::string_view bytes) {
  const Place& place = places_.at(name);
  const uint64_t begin = place.begin + first_byte;
  if (begin + bytes.size() > place.end) throw InternalError("array '" + name + "' is smaller than what is written to it");
  file_.write_at(begin, bytes);
}

SafetensorsReader::SafetensorsReader(std::string path) : path_(std::move(path)), file_(path_, std::ios::binary) {
  std::error_code ignored;
  if (!file_ || !std::filesystem::is_regular_file(path_, ignored))
    throw InputError(fmt::format("cannot read '{}' ({}); give a file that exists", path_, file_ ? "it is no regular file" : std::strerror(errno)));
  const uint64_t size = std::filesystem::file_size(path_);
  uint64_t length = 0;
  file_.read(reinterpret_cast<char*>(&length), kLengthBytes);
  if (!file_ || length > std::min(size - kLengthBytes, kMostHeaderBytes)) fail("its first bytes give no length of a header");
  std::string text(length, ' ');
  file_.read(text.data(), static_cast<std::streamsize>(length));
  const auto header = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!file_ || !header.is_object()) fail("its header is no JSON object");
  try {
    for (const auto& [name, about] : header.items()) {
      if (name == "__metadata__") {
        about.get_to(metadata_);
        continue;
      }
      const auto [begin, end] = about.at("data_offsets").get<std::pair<uint64_t, uint64_t>>();
      const ArraySpec spec{.name = name, .type = about.at("dtype"), .shape = about.at("shape")};
      uint64_t room = size;  // no product may wrap around
      for (const int64_t axis : spec.shape) {
        if (axis < 0 || (axis > 0 && static_cast<uint64_t>(axis) > room)) fail(fmt::format("the shape of '{}' is larger than the file", name));
        room /= std::max<uint64_t>(static_cast<uint64_t>(axis), 1);
      }
      if (begin > end || end > size - kLengthBytes - length || (bytes_of(spec.type) > 0 && end - begin != spec.n_byte()))
        fail(fmt::format("the bytes of '{}' are not as many as its shape says, or not all there", name));
      arrays_[name] = {spec.type, spec.shape, kLengthBytes + length + begin, kLengthBytes + length + end};
    }
  } catch (const nlohmann::json::exception&) {
    fail("its header does not describe arrays");
  }
}

const std::vector<int64_t>& SafetensorsReader::shape(const std::string& name, const std::string& type, size_t n_axis) const {
  const auto found = arrays_.find(name);
  if (found == arrays_.end()) fail(fmt::format("it holds no array '{}'", name));
  if (found->second.type != type || found->second.shape.size() != n_axis)
    fail(fmt::format("'{}' is {} of {} axes, not {} of {}", name, found->second.type, found->second.shape.size(), type, n_axis));
  return found->second.shape;
}

void SafetensorsReader::read_bytes(const std::string& name, uint64_t first_byte, std::span<std::byte> to) {
  const Array& a = arrays_.at(name);
  if (a.begin + first_byte + to.size() > a.end) throw InternalError("array '" + name + "' is smaller than what is read of it");
  file_.seekg(static_cast<std::streamoff>(a.begin + first_byte));
  if (!file_.read(reinterpret_cast<char*>(to.data()), static_cast<std::streamsize>(to.size()))) fail(fmt::format("'{}' cannot be read to its end", name));
}

void SafetensorsReader::fail(const std::string& what) const {
  throw InputError(fmt::format("'{}' is damaged or no file of sinkscope's --arrays: {}; make it again", path_, what));
}

}  // namespace sinkscope::io
