// Small models whose weights were set by hand, so that it is known what explain must find in them, and that there is nothing else.
#pragma once

#include <string>
#include <vector>

namespace sinkscope::planted {

constexpr int kTokens = 64;      // of a prompt
constexpr int kStop = 7;         // the token that is a full stop
constexpr int kBos = 1;

// GPT-2, so that positions can be told apart. Layer 0: head 0 sinks on position 0, head 1 on position 7, head 2 on every full stop,
// head 3 on nothing. The MLP of layer 1 gives position 0 a massive activation in one dimension, that of layer 3 takes it away.
constexpr int kMassiveDim = 5, kRisesIn = 1, kFallsIn = 3, kLayers = 5;
constexpr float kMassiveValue = 600;
void write_gpt2(const std::string& path);

// Llama with experts: layer 0 sinks on BOS; in layers 0 and 1 the router sends BOS to one expert, each of which adds to a massive
// activation, and the heads of layer 2 sink on what that activation is: without the two experts they do not.
constexpr int kExpert = 2, kExpertLayers = 2, kExperts = 8;
void write_moe(const std::string& path);

// BERT with words: layer 0, the only one, sinks on [CLS] with head 0, on [SEP] with head 1, on every comma with head 2, on nothing with 3.
void write_bert(const std::string& path);

// Prompts of words and full stops behind BOS; position 7 is a word.
std::vector<std::vector<int>> prompts(int n);

}  // namespace sinkscope::planted
