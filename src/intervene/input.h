// Edits of prompts.
#pragma once

#include <span>
#include <vector>

#include "intervene/edit.h"

namespace sinkscope::intervene {

struct EditedPrompt {
  std::vector<int> tokens;
  std::vector<int> origin;  // position in the prompt as it was; -1: there was no such token
};

// Throws InputError where a prompt has no BOS to leave away, or nothing is left.
EditedPrompt apply(std::span<const Edit> edits, std::span<const int> prompt, int bos);

}  // namespace sinkscope::intervene
