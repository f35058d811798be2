// Arrays in the safetensors format (huggingface/safetensors: 8 bytes of header length, a JSON header, raw data).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "sinkscope/atomic_file.h"

namespace sinkscope::io {

struct ArraySpec {
  std::string name;
  std::string type;              // "F32", "I32" or "U32": 4 bytes each
  std::vector<int64_t> shape;    // last fastest
};

// Shapes are declared first; parts may then be written in any order, so that no array has to stay in memory.
class SafetensorsWriter {
 public:
  SafetensorsWriter(std::string path, const std::vector<ArraySpec>& arrays, const std::map<std::string, std::string>& metadata);
  // `values` go to [index0, ...] of the array, index counting along the leading axes: 4-byte elements from there on.
  template <class T>
  void write(const std::string& name, int64_t first_element, std::span<const T> values) {
    static_assert(sizeof(T) == 4);
    write_bytes(name, first_element, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }
  AtomicFile& file() { return file_; }  // to commit

 private:
  void write_bytes(const std::string& name, int64_t first_element, std::string_view bytes);

  AtomicFile file_;
  struct Place {
    uint64_t begin, end;
  };
  std::map<std::string, Place> places_;
};

}  // namespace sinkscope::io
