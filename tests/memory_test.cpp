// Owned memory on real models, against the same models over llama.cpp's cache.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "policy/sink_map.h"
#include "sinkscope/error.h"
#include "sinkscope/models.h"
#include "sinkscope/session.h"
#include "sinkscope/stream.h"

namespace sinkscope {
namespace {

std::vector<int> random_tokens(const Model& model, int n) {
  std::mt19937 random(3);
  std::vector<int> tokens(n);
  for (int& t : tokens) t = static_cast<int>(random() % static_cast<unsigned>(model.info().n_vocab));
  if (model.info().bos >= 0) tokens[0] = model.info().bos;
  return tokens;
}

SessionOptions options(int n_batch, std::optional<MemoryOptions> memory, const char* kv_type = "f32") {
  return {.n_context = 1024, .n_batch = n_batch, .n_thread = 2, .kv_type = kv_type, .isa = "auto", .attention = Attention::sinkscope,
          .all_logits = true, .blas = true, .batch_invariant = true, .memory = std::move(memory)};
}

// Normalised squared error.
double error_of(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    difference += (static_cast<double>(got[i]) - want[i]) * (static_cast<double>(got[i]) - want[i]);
    size += static_cast<double>(want[i]) * want[i];
  }
  return difference / size;
}

class MemoryTest : public testing::TestWithParam<const char*> {};

TEST_P(MemoryTest, FullEqualsLlamasCache) {
  const Model model(GetParam());
  const std::vector<int> tokens = random_tokens(model, 200);
  std::vector<float> want, got;
  Session(model, options(32, std::nullopt)).run(tokens, &want);
  for (const char* positions : {"cache", "gaps"}) {
    Session session(model, options(32, MemoryOptions{.policy = "full", .budget = 0, .sinks = 4, .positions = positions}));
    session.run(tokens, &got);
    EXPECT_LE(error_of(got, want), 1e-6) << positions;
    session.run(tokens, &got);  // from an empty memory again
    EXPECT_LE(error_of(got, want), 1e-6) << positions;
  }
}

double nll_of(const std::vector<float>& logits, int token) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(double{x} - top);
  return std::log(sum) + top - logits[token];
}

// tests/reference/streaming.py: plain attention on torch over keys before rotation, one token at a time.
TEST(Streaming, EqualsThePlainImplementation) {
  std::ifstream file(SINKSCOPE_GOLDEN "/streaming-smollm2-135m.json");
  const auto golden = nlohmann::json::parse(file);
  const std::vector<int> tokens = golden.at("tokens");
  const std::vector<double> want = golden.at("nll");
  const Model model("smollm2-135m");
  Session session(model, options(1, MemoryOptions{.policy = "streaming", .budget = golden.at("budget"), .sinks = golden.at("sinks"), .positions = "cache"}));
  std::vector<float> logits;
  double sum = 0, want_sum = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (i == 0) session.run(std::span(tokens).first(1), &logits);
    else session.append(std::span(tokens).subspan(i, 1), &logits);
    const double nll = nll_of(logits, tokens[i + 1]);
    ASSERT_NEAR(nll, want[i], 1e-2) << i;
    sum += nll;
    want_sum += want[i];
  }
  EXPECT_NEAR(std::exp((sum - want_sum) / static_cast<double>(want.size())), 1, .005);
  EXPECT_EQ(session.memory_rows(), 256);
}

// Positions start anew at a base; what lies before it must still be met as it stands.
TEST(Streaming, NothingIsLostWhereTheBaseOfPositionsMoves) {
  const Model model("smollm2-135m");
  const std::vector<int> tokens = random_tokens(model, 4096 + 512 + 32);
  SessionOptions attached = options(512, std::nullopt);
  attached.n_context = static_cast<int>(tokens.size());
  const std::span<const int> before = std::span(tokens).first(4096 + 512), last = std::span(tokens).last(32);
  std::vector<float> want, got;
  Session theirs(model, attached);
  theirs.run(before);
  theirs.append(last, &want);
  Session ours(model, options(512, MemoryOptions{.policy = "full", .budget = 0, .sinks = 0, .positions = "cache"}));
  ours.run(before);
  ours.append(last, &got);
  EXPECT_LE(error_of(got, want), 1e-6);
}

size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST(Streaming, MemoryIsFlatOver20000Tokens) {
  const Model model("smollm2-135m");
  const std::vector<int> tokens = random_tokens(model, 20000);
  SessionOptions fast = options(128, MemoryOptions{.policy = "streaming", .budget = 256, .sinks = 4}, "f16");
  fast.all_logits = fast.batch_invariant = false;
  Session session(model, fast);
  size_t resident = 0, allocated = 0;
  session.run(tokens, nullptr, [&](int n_done) {
    if (n_done < 10000 || resident > 0) return;
    resident = resident_bytes();
    allocated = session.memory_bytes();
  });
  EXPECT_EQ(session.n_past(), 20000);
  EXPECT_EQ(session.memory_rows(), 256);
  EXPECT_LE(static_cast<double>(session.memory_bytes()), 1.02 * static_cast<double>(allocated));
  EXPECT_LE(static_cast<double>(resident_bytes()) - static_cast<double>(resident), 2 << 20);
}

// What the kernel, the observer and the policies do on threads, and what they leave.
TEST(Memory, EveryPolicyKeepsItsBudgetOnAnyNumberOfThreads) {
  const Model model("smollm2-135m");
  const std::vector<int> tokens = random_tokens(model, 88);
  const auto map = std::make_shared<policy::SinkMap>(policy::SinkMap{.positions = {0}, .n_token = 1000, .windows = {50}, .heads = {}, .n_head = 0});
  for (int layer = 0; layer < model.info().n_layer; ++layer)
    for (int h = 0; h < model.info().n_head_kv; ++h) map->heads.push_back({layer, h, {0}, {.01 * (1 + h)}, .1 * layer});
  using Case = std::pair<const char*, const char*>;
  for (const auto& [policy, positions] : {Case{"window", "auto"}, {"streaming", "auto"}, {"h2o", "auto"}, {"h2o", "cache"}, {"tova", "auto"}, {"snapkv", "auto"},
                                          {"pyramidkv", "auto"}, {"adakv", "auto"}, {"adakv", "cache"}, {"criticalkv", "auto"}, {"expected", "auto"}, {"sinkmap", "auto"}, {"duo", "auto"},
                                          {"knorm", "auto"}, {"keydiff", "auto"}}) {
    SCOPED_TRACE(std::string(policy) + ' ' + positions);
    std::vector<float> logits[2];
    for (const int n_thread : {1, 2}) {
      SessionOptions o = options(16, MemoryOptions{.policy = policy, .budget = 52, .sinks = 4, .positions = positions, .protect = {1, 2}, .sink_map = map}, "f16");
      o.n_thread = n_thread;
      o.batch_invariant = false;
      Session session(model, o);
      session.run(std::span(tokens).first(80), &logits[n_thread - 1]);
      for (int i = 80; i < 88; ++i) {
        std::vector<float> next;
        session.append(std::span(tokens).subspan(i, 1), &next);
        logits[n_thread - 1].insert(logits[n_thread - 1].end(), next.begin(), next.end());
      }
      EXPECT_LE(session.memory_rows(), 53);  // pyramidkv's layers are rounded one by one
      EXPECT_GE(session.memory_rows(), 44);
    }
    EXPECT_TRUE(std::ranges::all_of(logits[0], [](float x) { return std::isfinite(x); }));
    EXPECT_EQ(logits[0], logits[1]);
  }
}

// Tokens that come one by one leave most to remember.
TEST(Memory, ABudgetInBytesHoldsWhateverAPolicyRemembers) {
  const Model model("smollm2-135m");
  const std::vector<int> tokens = random_tokens(model, 32 * 11 + 40);
  for (const auto& [policy, mebibytes] : {std::pair("expected", 8), {"criticalkv", 10}}) {
    SessionOptions o = options(32, MemoryOptions{.policy = policy, .budget_bytes = int64_t{mebibytes} << 20}, "f16");
    o.all_logits = o.batch_invariant = false;
    Session session(model, o);
    size_t most = 0;
    session.run(std::span(tokens).first(32 * 11), nullptr, [&](int) { most = std::max(most, session.memory_bytes()); });
    for (int i = 32 * 11; i < static_cast<int>(tokens.size()); ++i) {
      session.append(std::span(tokens).subspan(i, 1));
      most = std::max(most, session.memory_bytes());
    }
    EXPECT_EQ(std::round(session.memory_rows()), session.memory_budget()) << policy;
    EXPECT_LE(static_cast<int64_t>(most), o.memory->budget_bytes) << policy;
  }
}

TEST(Memory, SequencesShareWhatTheyHaveInCommon) {
  const Model model("smollm2-135m");
  const std::vector<int> tokens = random_tokens(model, 300);
  const std::span<const int> prefix = std::span(tokens).first(200), one = std::span(tokens).subspan(200, 50), other = std::span(tokens).subspan(250, 50);
  for (const char* kv_type : {"f16", "q4c"}) {
    const MemoryOptions memory{.policy = "streaming", .budget = 240, .sinks = 4, .positions = "cache"};
    const auto alone = [&](std::span<const int> rest) {
      std::vector<float> logits;
      Session session(model, options(32, memory, kv_type));
      session.run(prefix);
      session.append(rest, &logits);
      return logits;
    };
    std::vector<float> logits;
    Session session(model, options(32, memory, kv_type));
    session.run(prefix);
    const size_t bytes = session.memory_bytes();
    const Sequence common = session.fork();
    session.append(one, &logits);
    EXPECT_EQ(logits, alone(one)) << kv_type;
    const Sequence first = session.fork();
    session.go_on(common);
    EXPECT_EQ(session.n_past(), 200);
    session.append(other, &logits);
    EXPECT_EQ(logits, alone(other)) << kv_type;
    EXPECT_LT(session.memory_bytes(), bytes * 2) << kv_type;  // three sequences, of which the first 200 rows are there once
    session.go_on(first);
    EXPECT_EQ(first.n_past(), 250);
    session.append(other.first(1), &logits);
  }
}

TEST(Memory, AChatIsTheTemplatesText) {
  const Model model("smollm2-135m");
  const std::vector<std::string> messages = {"Say only the word yes.", "Say only the word no."};
  std::vector<ChatMessage> chat;
  StreamOptions o;
  o.model = "smollm2-135m";
  o.chat = true;
  o.tokens = 40;
  o.temperature = 0;
  StreamEvents events;
  events.message = [&]() -> std::optional<std::string> {
    const size_t n = chat.size() / 2;
    if (n == messages.size()) return std::nullopt;
    chat.push_back({"user", messages[n]});
    chat.push_back({"assistant", ""});
    return messages[n];
  };
  events.text = [&](std::string_view text, const StreamState&) {
    if (text != "\n") chat.back().content += text;
    return true;
  };
  const StreamState end = stream(o, events);
  const std::vector<int> all = model.tokenize(model.chat_text(chat, false), /*marks=*/true);
  EXPECT_TRUE(model.is_end(all[all.size() - 2]));
  EXPECT_EQ(end.position, static_cast<int64_t>(all.size()) - 1);  // but for the line feed behind the last answer
}

TEST(Memory, WhatCannotBeIsRefused) {
  const Model model("smollm2-135m");
  const auto refused = [&](MemoryOptions memory, const char* says, const char* kv_type = "f16") {
    try {
      Session(model, options(32, std::move(memory), kv_type));
      ADD_FAILURE() << "accepted what it should say '" << says << "' to";
    } catch (const UsageError& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
  };
  refused({.policy = "fifo", .budget = 64, .sinks = 4, .positions = "cache"}, "full, window, streaming");
  refused({.policy = "streaming", .budget = 0, .sinks = 4, .positions = "cache"}, "--budget");
  refused({.policy = "streaming", .budget = 32, .sinks = 4, .positions = "cache"}, "32 tokens");
  refused({.policy = "streaming", .budget = 64, .sinks = 64, .positions = "cache"}, "64 sinks");
  refused({.policy = "streaming", .budget = 64, .sinks = 4, .positions = "left"}, "cache or gaps");
  refused({.policy = "full", .budget = 0, .sinks = 4, .positions = "cache"}, "f16, q8_0", "q5_1");
}

INSTANTIATE_TEST_SUITE_P(Models, MemoryTest, testing::Values("smollm2-135m", "gemma3-270m", "qwen2.5-coder-1.5b"));

}  // namespace
}  // namespace sinkscope
