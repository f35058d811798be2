// What a report holds: documents and the arrays that belong to them, as one safetensors file (docs/json.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sinkscope::report {

struct Document {
  std::string name;         // of the model, or of the file; unique
  std::string json;         // as --json writes it
  std::string arrays = {};  // a file of sinkscope.arrays/1, or empty
};

// Throws InputError where an array file cannot be read or is not of its document.
std::string payload(const std::vector<Document>& documents);

// Prompts whose mean attention goes in: of so many numbers each, at least one.
int n_prompt_shown(int n_prompt, int64_t n_number_per_prompt);

}  // namespace sinkscope::report
