// The same change at a place that was drawn at random: what an edit does must be more than that.
#pragma once

#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "intervene/edit.h"

namespace sinkscope::intervene {

struct Control {
  std::vector<Edit> edits;
  std::string what = {};  // positions, heads, dimensions, ...: what was drawn
};

// Dimensions where an edit names some, else experts, else heads of `silence`, else positions, all of the same layers; tokens for edits
// of the input. Nothing for edits that name no place (softmax-off-by-one everywhere), or have no other one to go to.
std::optional<Control> control_of(std::span<const Edit> edits, const Shape& shape, std::mt19937& random);

}  // namespace sinkscope::intervene
