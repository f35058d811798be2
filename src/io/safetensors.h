// Arrays in the safetensors format (huggingface/safetensors: 8 bytes of header length, a JSON header, raw data).
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sinkscope/atomic_file.h"

namespace sinkscope::io {

struct ArraySpec {
  std::string name;
  std::string type;              // "F32", "I32", "U32": 4 bytes each; "U8"
  std::vector<int64_t> shape;    // last fastest

  uint64_t n_element() const;
  uint64_t n_byte() const;       // 0 for a type that is none of these
};

// What stands before the arrays' bytes, which follow one another in this order.
std::string safetensors_header(const std::vector<ArraySpec>& arrays, const std::map<std::string, std::string>& metadata);

// Shapes are declared first; parts may then be written in any order, so that no array has to stay in memory.
class SafetensorsWriter {
 public:
  SafetensorsWriter(std::string path, const std::vector<ArraySpec>& arrays, const std::map<std::string, std::string>& metadata);
  // Elements from `first_element` on, counted over the whole array. T is the array's type.
  template <class T>
  void write(const std::string& name, int64_t first_element, std::span<const T> values) {
    write_bytes(name, first_element * sizeof(T), {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }
  AtomicFile& file() { return file_; }  // to commit

 private:
  void write_bytes(const std::string& name, uint64_t first_byte, std::string_view bytes);

  AtomicFile file_;
  struct Place {
    uint64_t begin, end;
  };
  std::map<std::string, Place> places_;
};

// Reads such a file part by part. A file that cannot be read, or whose header and bytes do not fit together, is an InputError.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(std::string path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool has(const std::string& name) const { return arrays_.contains(name); }
  // Throws InputError where there is no such array, or it has another type or number of axes.
  const std::vector<int64_t>& shape(const std::string& name, const std::string& type, size_t n_axis) const;
  // Elements from `first_element` on, of an array of this type.
  template <class T>
  void read(const std::string& name, int64_t first_element, std::span<T> values) {
    read_bytes(name, first_element * sizeof(T), std::as_writable_bytes(values));
  }

 private:
  struct Array {
    std::string type;
    std::vector<int64_t> shape;
    uint64_t begin, end;  // in the file
  };
  void read_bytes(const std::string& name, uint64_t first_byte, std::span<std::byte> to);
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  std::ifstream file_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, Array> arrays_;
};

}  // namespace sinkscope::io
