// Token ids to run: cut from texts, read from a file, or made up as a control.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "sinkscope/profile.h"
#include "sinkscope/session.h"

namespace sinkscope::profile_run {

using Prompt = std::vector<int>;

// Throws UsageError for what needs no model to be wrong.
void check(const PromptOptions& options);
void one_of(const char* option, const std::string& value, std::initializer_list<const char*> known);

// What options.texts or options.tokens say. Throws InputError where there are none, or a text is too short; `notes` gets
// a sentence for each text that gives no prompt.
std::vector<Prompt> read_prompts(const PromptOptions& options, const Model& model, std::vector<std::string>& notes);

// As many prompts as `like`, of the same lengths: "random" has random words behind the same first token where that is
// BOS, "repeat" one random word all the way, without BOS.
std::vector<Prompt> control_prompts(const std::string& kind, const std::vector<Prompt>& like, const Model& model,
                                    uint32_t seed);

// The prompts start with BOS.
bool starts_with_bos(const std::vector<Prompt>& prompts, const Model& model);

}  // namespace sinkscope::profile_run
