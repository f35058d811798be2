// Every architecture that llama.cpp's test-llama-archs can make: with the device, logits are llama.cpp's own.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "sinkscope/error.h"
#include "sinkscope/session.h"

namespace sinkscope {
namespace {

constexpr double kEqual = 1e-6;  // normalised squared error

// Architectures that give the device nothing, and why. The test fails when this list changes.
const std::map<std::string, std::string> kNotServed = {
    {"grok-moe", "no attention operation"},      // its logits are capped outside of what flash attention can do
    {"mamba-dense", "no attention operation"},   // recurrent
    {"mamba2-dense", "no attention operation"},  // recurrent
};

// Where llama.cpp's own flash attention is further than that from its plain one.
const std::set<std::string> kFlashDiffers = {};

double normalised_squared_error(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    size += double{want[i]} * want[i];
  }
  return difference / size;
}

// Rows that each layer showed.
class RowCount : public Probe {
 public:
  void begin(const AttentionShape& shape) override {
    n_row[shape.layer] += shape.n_query;
    ++n_operation;
  }
  void see(const Tile&) override {}
  void merge(int, int, int) override {}
  std::map<int, int> n_row;
  int64_t n_operation = 0;
};

constexpr int kToken = 128;

struct Outcome {
  std::vector<float> logits;
  int64_t n_operation = 0;
  RowCount rows;
  std::vector<std::string> refused;
  std::string error;
};

// By token: the last ones come one by one, as in decoding, and products are made by OpenBLAS.
Outcome run(const Model& model, Attention attention, bool by_token = false) {
  std::mt19937 random(1);
  std::vector<int> tokens(kToken);
  for (int& t : tokens) t = static_cast<int>(random() % 128);
  Outcome run;
  try {
    Session session(model, {.n_context = 256, .n_batch = 64, .n_thread = 2, .kv_type = "f16", .isa = "auto", .attention = attention, .all_logits = true, .blas = by_token, .batch_invariant = !by_token});
    if (attention == Attention::sinkscope) session.watch({&run.rows});
    const int n_single = by_token && session.has_memory() ? 8 : 0;
    session.run(std::span(tokens).first(kToken - n_single), &run.logits);
    for (int i = kToken - n_single; i < kToken; ++i) {
      std::vector<float> logits;
      session.append(std::span(tokens).subspan(i, 1), &logits);
      run.logits.insert(run.logits.end(), logits.begin(), logits.end());
    }
    run.n_operation = session.n_operation();
    run.refused = session.refused();
  } catch (const InputError& e) {
    run.error = e.what();
  }
  return run;
}

std::vector<std::filesystem::path> tiny_models() {
  const char* folder = std::getenv("SINKSCOPE_TINY_MODELS");
  std::vector<std::filesystem::path> files;
  if (folder)
    for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

TEST(Architectures, LogitsAreLlamaCppsOwn) {
  const std::vector<std::filesystem::path> files = tiny_models();
  ASSERT_GE(files.size(), 120u);

  std::map<std::string, std::string> not_served;
  std::set<std::string> flash_differs;
  for (const auto& file : files) {
    const std::string name = file.stem();
    SCOPED_TRACE(name);
    const Model model(file);
    const Outcome plain = run(model, Attention::llama_plain), flash = run(model, Attention::llama_flash), ours = run(model, Attention::sinkscope);
    if (!plain.error.empty() || !ours.error.empty() || ours.n_operation == 0) {
      not_served[name] = !plain.error.empty() ? plain.error : !ours.error.empty() ? ours.error : "no attention operation";
      printf("%-28s not served: %s\n", name.c_str(), not_served[name].c_str());
      continue;
    }
    const double flash_error = normalised_squared_error(flash.logits, plain.logits);
    const Outcome by_token = run(model, Attention::sinkscope, /*by_token=*/true);
    const double by_token_error = normalised_squared_error(by_token.logits, plain.logits);
    const double our_error = normalised_squared_error(ours.logits, plain.logits);
    printf("%-28s ours %.1e, by token %.1e  llama.cpp's flash %.1e  %lld operations%s%s\n", name.c_str(), our_error, by_token_error, flash_error, static_cast<long long>(ours.n_operation),
           ours.refused.empty() ? "" : "  refused: ", ours.refused.empty() ? "" : ours.refused[0].c_str());
    if (flash_error <= kEqual) {
      EXPECT_LE(our_error, kEqual);
      EXPECT_LE(by_token_error, kEqual) << "by token " << by_token.error;
    } else {
      flash_differs.insert(name);
    }
    EXPECT_TRUE(ours.refused.empty());
    EXPECT_EQ(ours.rows.n_operation, ours.n_operation) << "operations without a layer";
    for (const auto& [layer, n_row] : ours.rows.n_row) EXPECT_EQ(n_row, kToken) << "layer " << layer;
  }
  EXPECT_EQ(flash_differs, kFlashDiffers);
  EXPECT_EQ(not_served, kNotServed);
}

// Eight batches of 16 tokens: what came before is in owned memory. Empty where the model or its attention is refused.
std::vector<float> logits_over(const Model& model, const std::optional<MemoryOptions>& memory, std::string& refusal) {
  std::mt19937 random(1);
  std::vector<int> tokens(kToken);
  for (int& t : tokens) t = static_cast<int>(random() % 128);
  std::vector<float> logits;
  try {
    Session session(model, {.n_context = 256, .n_batch = 16, .n_thread = 2, .kv_type = "f32", .isa = "auto", .attention = Attention::sinkscope,
                            .all_logits = true, .blas = false, .batch_invariant = true, .memory = memory});
    session.run(tokens, &logits);
  } catch (const InputError& e) {
    refusal = e.what();
  } catch (const InternalError& e) {
    refusal = e.what();
  }
  return logits;
}

// What owned memory cannot serve, by what the sentence says.
const std::map<std::string, std::set<std::string>> kNotOwned = {
    {"remembers by more than attention",
     {"bailingmoe3-moe", "deepseek4-moe", "falcon-h1-dense", "glm5-next-moe", "granitehybrid-dense", "jamba-dense", "kimi-k3-moe", "kimi-linear-moe",
      "lfm2-dense", "lfm2moe-moe", "mamba-dense", "mamba2-dense", "minimax-01-moe", "nemotron_h-dense", "nemotron_h_moe-dense", "plamo2-dense",
      "qwen35-dense", "qwen35moe-moe", "qwen3next-moe", "qwen4exp-moe"}},
    {"has no memory", {"dream-dense", "llada-dense", "llada-moe-moe", "rnd1-moe"}},
    {"sliding windows of a kind", {"llama4-moe"}},
    {"parts that owned memory does not know", {"minimax-m3-moe"}},
    {"there is no operation", {"grok-moe"}},
    {"must stand where they were",  // with positions `cache`
     {"deepseek2-moe", "deepseek32-moe", "dots3note-moe", "glm-dsa-moe", "gpt2-dense", "hunyuan-dense-dense", "hunyuan-moe-moe", "hunyuan_vl-dense", "hy_v4-moe",
      "maincoder-dense", "mistral4-moe"}},
};

TEST(Architectures, OwnedMemoryThatKeepsEverythingChangesNothing) {
  std::map<std::string, std::set<std::string>> refused;
  for (const auto& [says, names] : kNotOwned) refused[says];
  for (const auto& file : tiny_models()) {
    const std::string name = file.stem();
    SCOPED_TRACE(name);
    const Model model(file);
    std::string reason, ignored;
    const std::vector<float> want = logits_over(model, std::nullopt, ignored);
    for (const char* positions : {"cache", "gaps"}) {
      reason.clear();
      const std::vector<float> got = logits_over(model, MemoryOptions{.policy = "full", .budget = 0, .sinks = 4, .positions = positions}, reason);
      if (got.empty()) {
        bool known = false;
        for (auto& [says, names] : refused)
          if (reason.find(says) != std::string::npos) names.insert(name), known = true;
        EXPECT_TRUE(known) << reason;
      } else {
        const double error = normalised_squared_error(got, want);
        EXPECT_LE(error, kEqual) << positions;
        printf("%-28s positions %-5s %.1e\n", name.c_str(), positions, error);
      }
    }
  }
  EXPECT_EQ(refused, kNotOwned);
}

TEST(Architectures, StreamsDropRowsWhereverOwnedMemoryServes) {
  for (const auto& file : tiny_models()) {
    const Model model(file);
    std::string whole, cut;
    const std::vector<float> full = logits_over(model, MemoryOptions{}, whole), streamed = logits_over(model, MemoryOptions{.policy = "streaming", .budget = 48}, cut);
    EXPECT_EQ(cut, whole) << file.stem();
    EXPECT_TRUE(std::ranges::all_of(streamed, [](float x) { return std::isfinite(x); })) << file.stem();
  }
}

// Mass that learned sinks take, of all rows.
class LearnedMass : public Probe {
 public:
  void begin(const AttentionShape&) override {}
  void see(const Tile& tile) override {
    for (int r = 0; r < tile.n_row; ++r) least = std::min(least, tile.learned_sink_mass[r]);
  }
  void merge(int, int, int) override {}
  float least = 1;
};

TEST(Architectures, LearnedSinksTakeTheirMassInAStreamToo) {
  const auto files = tiny_models();
  const auto file = std::ranges::find_if(files, [](const auto& f) { return f.stem() == "gpt-oss-moe"; });
  ASSERT_NE(file, files.end());
  const Model model(*file);
  std::string refusal;
  const auto streamed = [&](int budget) { return logits_over(model, MemoryOptions{.policy = "streaming", .budget = budget, .sinks = 4}, refusal); };
  const std::vector<float> want = logits_over(model, std::nullopt, refusal), whole = streamed(2 * kToken), cut = streamed(48);
  ASSERT_EQ(refusal, "");
  EXPECT_LE(normalised_squared_error(whole, want), kEqual);
  EXPECT_NE(cut, whole);  // rows were dropped
  EXPECT_TRUE(std::ranges::all_of(cut, [](float x) { return std::isfinite(x); }));

  Session session(model, {.n_context = 0, .n_batch = 1, .n_thread = 1, .memory = MemoryOptions{.policy = "streaming", .budget = 16, .sinks = 4}});
  LearnedMass mass;
  session.watch({&mass});
  session.run(std::vector<int>(40, 5));
  EXPECT_GT(mass.least, 0);
  EXPECT_LT(session.memory_rows(), 40);  // layers with a window keep it, the others 16
}

}  // namespace
}  // namespace sinkscope
