// Runs that stop and go on, what is exported of them against llama.cpp, and their configuration.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>
#include <gtest/gtest.h>
#include <llama.h>

#include "config/run_config.h"
#include "data/packing.h"
#include "evaluation/evaluation.h"
#include "export/gguf.h"
#include "sinkscope/emergence.h"
#include "sinkscope/error.h"
#include "sinkscope/profile.h"
#include "sinkscope/session.h"
#include "test_models.h"
#include "training/trainer.h"

namespace sinkscope::train {
namespace {

namespace fs = std::filesystem;

class Run : public testing::Test {
 protected:
  // A folder of tokens, made by the program: sentencepiece cannot be in this process.
  static void SetUpTestSuite() {
    folder() = fs::temp_directory_path() / fmt::format("sinkscope-train-test-{}", getpid());
    fs::create_directory(folder());
    prepare("data", 1);
  }
  static void prepare(const char* name, uint32_t x) {
    std::ofstream text(folder() / "text.txt");
    constexpr const char* kWords[] = {"rain", "falls", "on", "roofs", "and", "streams", "of", "water", "run", "to", "the", "river", "slowly", "again"};
    for (int i = 0; i < 20000; ++i) {
      x = x * 1664525 + 1013904223;
      text << kWords[x >> 16 & 7] << kWords[x >> 20 & 7][0] << (x >> 8) % 40 << ((x >> 28) == 3 ? ".\f" : (x >> 28) == 4 ? ".\n" : " ");
    }
    text.close();
    ASSERT_EQ(std::system(fmt::format("{} prepare {} --out {} --vocabulary 512 > /dev/null", SINKSCOPE_TRAIN_PROGRAM, (folder() / "text.txt").string(), (folder() / name).string()).c_str()), 0);
  }
  static void TearDownTestSuite() { fs::remove_all(folder()); }
  static fs::path& folder() {
    static fs::path path;
    return path;
  }
  static std::string text_of(const RunConfig& config, const char* name) {
    const fs::path path = folder() / name;
    std::ofstream(path) << to_toml(config);
    return path.string();
  }
  static RunConfig tiny() {
    RunConfig c;
    c.model = small("softmax");
    c.data = {.folder = (folder() / "data").string(), .packing = "context", .context = kContext};
    c.training.tokens = 40 * 4 * kContext, c.training.batch = 4, c.training.warmup = 5, c.training.checkpoint = 7, c.training.measurements = 4, c.training.probe = 6, c.training.threads = 1;
    return c;
  }
  static std::string bytes(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

TEST_F(Run, GoesOnToTheSameBits) {
  RunConfig c = tiny();
  c.training.threads = 2;
  const fs::path whole = folder() / "whole", parts = folder() / "parts";
  EXPECT_TRUE(train(c, whole.string()).finished);
  for (const int64_t stop : {3, 19, 33}) EXPECT_FALSE(train(c, parts.string(), [&](const State& s) { return s.step < stop; }).finished);
  EXPECT_TRUE(train(c, parts.string()).finished);
  EXPECT_EQ(bytes(whole / "model.gguf"), bytes(parts / "model.gguf"));
  EXPECT_EQ(bytes(whole / "telemetry.jsonl"), bytes(parts / "telemetry.jsonl"));
  EXPECT_GT(bytes(whole / "model.gguf").size(), 10000u);
  RunConfig other = c;
  other.training.seed = 2;
  EXPECT_THROW(train(other, parts.string()), InputError);
}

TEST_F(Run, InBfloat16GoesOnToTheSameBitsNearThoseOfFloats) {
  RunConfig c = tiny();
  const double floats = train(c, (folder() / "floats").string()).curve.back().validation;
  c.training.precision = "bf16";
  const fs::path whole = folder() / "whole-bf16", parts = folder() / "parts-bf16";
  const double validation = train(c, whole.string()).curve.back().validation;
  EXPECT_NE(validation, floats);
  EXPECT_NEAR(validation, floats, 0.01);
  EXPECT_FALSE(train(c, parts.string(), [&](const State& s) { return s.step < 19; }).finished);
  EXPECT_TRUE(train(c, parts.string()).finished);
  EXPECT_EQ(bytes(whole / "model.gguf"), bytes(parts / "model.gguf"));
}

// AdamW's moments start at 0: its first step moves a weight by rate * g / (|g| + 1e-8), of a g as short as this nearly in proportion to it.
TEST_F(Run, AStepFollowsTheClippedGradientOfItsObjective) {
  const auto follows = [&](const char* name, void (*change)(RunConfig&)) {
    RunConfig c = tiny();
    c.training.tokens = 1, c.training.batch = 8, c.training.warmup = 1, c.training.rate = 1, c.training.weight_decay = 0, c.training.clip = 1e-9, c.training.measurements = 2;
    change(c);
    const std::string at = (folder() / name).string();
    ASSERT_EQ(train(c, at).state.step, 1);
    const LoadedRun run = load_run(at);
    Tensor tokens = torch::empty({8, kContext + 1}, torch::kLong);
    for (int a = 0; a < c.training.accumulate; ++a)
      Packing(*run.data, c.data.packing, c.training.seed).batch(a, c.training.batch, kContext, {tokens[a * c.training.batch].data_ptr<int64_t>(), static_cast<size_t>(tokens.numel() / c.training.accumulate)});
    LanguageModel model(c.model, kVocab + c.model.diffusion, kContext, c.training.seed);
    objective(model, tokens, int64_t{c.training.seed} << 32).backward();
    std::vector<Tensor> gradients, moves;
    for (const auto& p : model->named_parameters()) {
      gradients.push_back(p.value().grad().flatten());
      moves.push_back((run.model->named_parameters()[p.key()] - p.value()).detach().flatten());
    }
    const Tensor all = torch::cat(gradients), gradient = all * (c.training.clip / all.norm()), move = -gradient / (gradient.abs() + 1e-8);
    EXPECT_LT(((torch::cat(moves) - move).norm() / move.norm()).item<double>(), 1e-3) << name;
  };
  follows("one batch", [](RunConfig&) {});
  follows("two batches", [](RunConfig& c) { c.training.batch = 4, c.training.accumulate = 2; });
  follows("with experts", [](RunConfig& c) { c.model.n_expert = 4, c.model.balance = 0.5; });
  follows("with a prefix", [](RunConfig& c) { c.model.prefix = 12; });
  follows("of diffusion", [](RunConfig& c) { c.model.diffusion = true; });
}

// Gradients without length move nothing: what moves is what decays, by the rate.
TEST_F(Run, MatricesDecayByTheRateOfEachStep) {
  constexpr int kSteps = 10, kWarmup = 4;
  for (const std::string schedule : {"constant", "cosine"}) {
    RunConfig c = tiny();
    c.model.attention = "sink_token", c.model.qk_norm = "before";
    c.training.tokens = kSteps * 4 * kContext, c.training.schedule = schedule, c.training.warmup = kWarmup, c.training.rate = 1, c.training.weight_decay = 0.5, c.training.clip = 1e-30;
    c.training.checkpoint = 1, c.training.measurements = 2;
    const std::string at = (folder() / ("decays-" + schedule)).string();
    std::vector<LanguageModel> models = {LanguageModel(c.model, kVocab, kContext, c.training.seed)};
    train(c, at, [&](const State& s) {
      if (s.step > 1) models.push_back(load_run(at).model);  // of the step before
      return true;
    });
    models.push_back(load_run(at).model);
    ASSERT_EQ(models.size(), kSteps + 1u);
    for (int step = 1; step <= kSteps; ++step) {
      const double warm = std::min(1.0, static_cast<double>(step) / kWarmup), rate = schedule == "constant" ? warm : warm * (0.55 + 0.45 * std::cos(M_PI * step / kSteps));
      for (const auto& p : models[step]->named_parameters()) {
        const Tensor before = models[step - 1]->named_parameters()[p.key()];
        const bool decays = p.key().find("norm") == std::string::npos && p.key() != "sink_embedding";
        EXPECT_TRUE(decays ? torch::allclose(p.value(), before * (1 - 0.5 * rate), 1e-5, 1e-12) : p.value().equal(before)) << schedule << ", step " << step << ": " << p.key();
      }
    }
  }
}

TEST_F(Run, ThoseOfFewerTokensAreTheStartOfLongerOnesAtAConstantRate) {
  RunConfig c = tiny(), shorter = c;
  shorter.training.tokens /= 2;
  const fs::path straight = folder() / "straight", longer = folder() / "longer";
  ASSERT_TRUE(train(c, straight.string()).finished);
  ASSERT_TRUE(train(shorter, longer.string()).finished);
  EXPECT_NE(bytes(straight / "model.gguf"), bytes(longer / "model.gguf"));
  EXPECT_TRUE(train(c, longer.string()).finished);
  EXPECT_EQ(bytes(straight / "model.gguf"), bytes(longer / "model.gguf"));
  EXPECT_EQ(bytes(straight / "run.toml"), bytes(longer / "run.toml"));
  EXPECT_EQ(read_telemetry(straight.string()).back().alpha, read_telemetry(longer.string()).back().alpha);
  EXPECT_THROW(train(shorter, longer.string()), InputError);
  c.training.schedule = "cosine";
  const fs::path falling = folder() / "falling";
  ASSERT_TRUE(train(c, falling.string()).finished);
  c.training.tokens *= 2;
  EXPECT_THROW(train(c, falling.string()), InputError);
}

TEST_F(Run, GoesOnOverItsOwnTokensAlone) {
  prepare("changing", 2);
  RunConfig c = tiny();
  c.data.folder = (folder() / "changing").string();
  const std::string at = (folder() / "of-changing").string();
  ASSERT_FALSE(train(c, at, [](const State& s) { return s.step < 3; }).finished);
  prepare("changing", 3);
  EXPECT_THROW(train(c, at), InputError);
  EXPECT_THROW(load_run(at), InputError);
  prepare("changing", 2);
  EXPECT_TRUE(train(c, at).finished);
}

TEST_F(Run, KilledAtAnyMomentItGoesOnToTheSameBits) {
  RunConfig c = tiny();
  c.training.tokens *= 6;
  c.training.checkpoint = 1;  // so that kills meet saves
  const fs::path whole = folder() / "unkilled", killed = folder() / "killed";
  ASSERT_TRUE(train(c, whole.string()).finished);
  const std::string file = text_of(c, "killed.toml");
  int n_kill = 0;
  for (int i = 0; i < 40; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      (void)!freopen("/dev/null", "w", stderr), (void)!freopen("/dev/null", "w", stdout);
      execl(SINKSCOPE_TRAIN_PROGRAM, SINKSCOPE_TRAIN_PROGRAM, "run", file.c_str(), "--out", killed.c_str(), nullptr);
      _exit(127);
    }
    const auto patience = std::chrono::milliseconds(n_kill < 5 ? 600 + 137 * i : 600000);
    int status = 0;
    const auto start = std::chrono::steady_clock::now();
    while (waitpid(child, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() - start < patience || !fs::exists(killed / "checkpoint.pt")) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        continue;
      }
      kill(child, SIGKILL);
      ++n_kill;
      waitpid(child, &status, 0);
      break;
    }
    if (WIFEXITED(status)) {
      ASSERT_EQ(WEXITSTATUS(status), 0);
      break;
    }
  }
  EXPECT_GT(n_kill, 0);
  EXPECT_EQ(bytes(whole / "model.gguf"), bytes(killed / "model.gguf"));
}

TEST_F(Run, IsEvaluatedWithRoundedWeightsAndWithoutOldKeys) {
  RunConfig c = tiny();
  c.model.d_model = 32, c.model.d_ff = 64;
  const std::string at = (folder() / "evaluated").string();
  EXPECT_THROW(evaluate_run(at, {}), InputError);
  ASSERT_TRUE(train(c, at).finished);
  const Evaluation e = evaluate_run(at, {.types = {"q8_0", "q4_0"}, .window = kContext - 1, .first = {0, 1}, .contexts = 8});
  EXPECT_LT(e.loss, std::log(512.0));
  EXPECT_NEAR(e.rounded[0], e.loss, 1e-3);
  EXPECT_NE(e.rounded[1], e.loss);
  EXPECT_NE(e.streaming[0], e.loss_behind);
  EXPECT_EQ(e.streaming[1], e.loss_behind);  // the last 23 keys and the first: all of 24
  EXPECT_THROW(evaluate_run(at, {.types = {"q4_K"}, .window = 8}), UsageError);  // blocks of 256
  c.model.attention = "kv_bias";  // learned keys and values of 8 numbers are no weights of a product
  ASSERT_TRUE(train(c, at + "-bias").finished);
  EXPECT_NO_THROW(evaluate_run(at + "-bias", {.types = {"q8_0"}, .window = 8, .contexts = 2}));
  EXPECT_THROW(evaluate_run(at, {.types = {"f16"}, .window = 8}), UsageError);
  EXPECT_THROW(evaluate_run(at, {.window = kContext}), UsageError);
}

TEST_F(Run, CheckpointsGiveItsCurveAgain) {
  RunConfig c = tiny();
  c.model.d_head = 16, c.model.attention = "sigmoid";
  c.training.exports = true;
  const fs::path run = folder() / "exports";
  const Outcome trained = train(c, run.string());
  EmergenceOptions o;
  for (const auto& file : fs::directory_iterator(run / "steps")) o.checkpoints.push_back(file.path().string());
  o.tokens = (run / "probe.json").string(), o.kv_type = "f32", o.length = 0, o.threads = 2, o.json = (run / "emergence.json").string();
  const Emergence e = emergence(o);
  ASSERT_EQ(e.points.size(), trained.curve.size());
  EXPECT_EQ(e.onset, onset(trained.curve));
  for (size_t i = 0; i < e.points.size(); ++i) {
    const Measurement& m = trained.curve[i];
    const EmergencePoint& p = e.points[i];
    EXPECT_EQ(p.step, m.step);
    EXPECT_NEAR(p.alpha, m.alpha, 1e-3 * m.alpha);
    EXPECT_NEAR(p.alpha_null, m.alpha_null, 1e-6);
    EXPECT_NEAR(p.sink_rate, m.sink_rate, 1e-3);
    EXPECT_NEAR(p.strongest.alpha, m.strongest, 1e-3 * m.strongest);
    EXPECT_NEAR(p.mass, m.mass, 1e-3 * m.mass);
    ASSERT_EQ(p.norm_ratio.size(), m.norm_ratio.size());
    for (size_t l = 0; l < m.norm_ratio.size(); ++l) EXPECT_NEAR(p.norm_ratio[l], m.norm_ratio[l], 1e-3 * m.norm_ratio[l]);
  }
  EXPECT_GT(fs::file_size(o.json), 1000u);
  c.model.attention = "elu";
  EXPECT_THROW(train(c, (folder() / "no-exports").string()), InputError);
}

// What can be a GGUF file, and what it becomes.
struct Exported {
  const char *name, *architecture;
  void (*change)(ModelConfig&);
};
class Export : public Run, public testing::WithParamInterface<Exported> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Export, testing::Values(
    Exported{"plain", "llama", [](ModelConfig&) {}}, Exported{"untied", "llama", [](ModelConfig& c) { c.tied = false; }},
    Exported{"off_by_one", "llama", [](ModelConfig& c) { c.attention = "softmax1"; }}, Exported{"sink_logit", "llama", [](ModelConfig& c) { c.attention = "sink_logit"; }},
    Exported{"kv_bias", "llama", [](ModelConfig& c) { c.attention = "kv_bias"; }}, Exported{"k_bias", "llama", [](ModelConfig& c) { c.attention = "k_bias"; }},
    Exported{"v_bias", "llama", [](ModelConfig& c) { c.attention = "v_bias"; }}, Exported{"sigmoid", "llama", [](ModelConfig& c) { c.attention = "sigmoid"; }},
    Exported{"kv_bias_qk_norm", "qwen3", [](ModelConfig& c) { c.attention = "kv_bias", c.qk_norm = "before"; }},
    Exported{"sigmoid_diffusion", "llada", [](ModelConfig& c) { c.attention = "sigmoid", c.diffusion = true; }},
    Exported{"experts", "llama", [](ModelConfig& c) { c.n_expert = 4; }}, Exported{"qk_norm", "qwen3", [](ModelConfig& c) { c.qk_norm = "before"; }},
    Exported{"qwen_experts", "qwen3moe", [](ModelConfig& c) { c.n_expert = 4, c.qk_norm = "before"; }},
    Exported{"hunyuan", "hunyuan-moe", [](ModelConfig& c) { c.n_expert = 4, c.n_expert_shared = 1, c.qk_norm = "behind"; }},
    Exported{"diffusion", "llada", [](ModelConfig& c) { c.diffusion = true; }}), [](const auto& kind) { return kind.param.name; });

TEST_P(Export, GivesTheSameLogitsAndMetrics) {
  ModelConfig c = small("softmax");
  c.d_head = 16;
  GetParam().change(c);
  const TokenFile data((folder() / "data").string());
  LanguageModel model(c, data.n_vocab() + c.diffusion, kContext, 3);
  {
    const torch::NoGradGuard no_grad;
    for (const auto& p : model->named_parameters()) p.value().add_(torch::randn_like(p.value()) * 0.15);
  }
  const std::string path = (folder() / (std::string(GetParam().name) + ".gguf")).string();
  ASSERT_EQ(why_not_gguf(c), "");
  write_gguf(model, data, true, kContext, path);

  const Tensor tokens = some_tokens(3);
  const torch::NoGradGuard no_grad;
  const Model loaded(path);
  EXPECT_EQ(loaded.info().architecture, GetParam().architecture);
  // llama.cpp's graphs without a cache round keys and values to F16 before fused attention.
  const double tolerance = c.diffusion ? 1e-3 : 1e-4;
  Session session(loaded, {.n_context = kContext, .n_batch = kContext, .n_thread = 2, .kv_type = "f32", .all_logits = true});
  Session plain(loaded, {.n_context = kContext, .n_batch = kContext, .n_thread = 2, .kv_type = "f32", .attention = sinkscope::Attention::llama_plain, .all_logits = true});
  std::ofstream prompts(folder() / "prompts.json");
  for (int64_t p = 0; p < tokens.size(0); ++p) {
    std::vector<int> ids(kContext);
    for (int64_t i = 0; i < kContext; ++i) ids[i] = static_cast<int>(tokens[p][i].item<int64_t>());
    const Tensor want = model(tokens.narrow(0, p, 1).narrow(1, 0, kContext))[0].contiguous();
    const auto error = [&](Session& s) {
      std::vector<float> logits;
      s.run(ids, &logits);
      return ((torch::from_blob(logits.data(), want.sizes()) - want).norm() / want.norm()).item<double>();
    };
    EXPECT_LT(error(session), tolerance);
    if (*variant(c.attention).gguf == 0) EXPECT_LT(error(plain), 1e-4);
    else EXPECT_GT(error(plain), 1e-3);  // llama.cpp alone does not know of it
    prompts << (p == 0 ? "[[" : ",[");
    for (size_t i = 0; i < ids.size(); ++i) prompts << (i > 0 ? "," : "") << ids[i];
    prompts << "]";
  }
  prompts << "]";
  prompts.close();
  ProfileOptions options;
  options.model = path, options.tokens = (folder() / "prompts.json").string(), options.kv_type = "f32", options.threads = 2;
  const Profile profiled = profile(options);
  const Measurement m = measure(model, tokens, torch::tensor(int64_t{data.n_vocab()}));
  EXPECT_NEAR(m.alpha, profiled.sink_rate.alpha_by_position[0], 1e-3 * m.alpha);
  EXPECT_NEAR(m.alpha_null, profiled.sink_rate.uniform_alpha_by_position[0], 1e-6);
  EXPECT_NEAR(m.sink_rate, profiled.sink_rate.first, 1e-3);
  EXPECT_NEAR(m.mass, profiled.mass, 1e-3 * m.mass);
  if (profiled.learned_sink) {
    EXPECT_NEAR(1 - m.mass, profiled.learned_sink->alpha, 1e-3 * (1 - m.mass));
  }
  EXPECT_EQ(profiled.learned_sink.has_value(), variant(c.attention).sink_logit || variant(c.attention).key_bias || variant(c.attention).value_bias || c.attention == "softmax1");
  double strongest = 0;
  for (const LayerProfile& layer : profiled.layers)
    for (const HeadProfile& head : layer.heads) strongest = std::max(strongest, head.alpha_first);
  EXPECT_NEAR(m.strongest, strongest, 1e-3 * strongest);
}

// A matrix of a GGUF file in floats.
Tensor matrix_of(const std::string& path, const std::string& name) {
  ggml_context* tensors = nullptr;
  gguf_context* file = gguf_init_from_file(path.c_str(), {.no_alloc = false, .ctx = &tensors});
  const ggml_tensor* t = ggml_get_tensor(tensors, name.c_str());
  Tensor matrix = torch::empty({t->ne[1], t->ne[0]});
  ggml_get_type_traits(t->type)->to_float(t->data, matrix.data_ptr<float>(), matrix.numel());
  gguf_free(file);
  ggml_free(tensors);
  return matrix;
}

TEST_F(Run, RoundsAsTheQuantiserOfLlamaCppDoes) {
  ModelConfig c = small("softmax");
  c.d_model = 32, c.d_head = 16, c.d_ff = 64;
  const TokenFile data((folder() / "data").string());
  const std::string floats = (folder() / "floats.gguf").string(), rounded = (folder() / "rounded.gguf").string();
  const std::pair<const char*, llama_ftype> types[] = {{"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0}, {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0}};
  for (const auto& [type, ftype] : types) {
    LanguageModel model = shaken(c);
    write_gguf(model, data, true, kContext, floats);
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.nthread = 1, params.ftype = ftype;
    ASSERT_EQ(llama_model_quantize(floats.c_str(), rounded.c_str(), &params), 0u);
    const Tensor before = model->layers[1]->attention->value->weight.clone();
    round_layers(model, type);
    const std::pair<const char*, Tensor> matrices[] = {{"blk.1.attn_v.weight", model->layers[1]->attention->value->weight}, {"blk.0.attn_output.weight", model->layers[0]->attention->output->weight}, {"blk.1.ffn_down.weight", model->layers[1]->mlp->down->weight}};
    for (const auto& [name, matrix] : matrices) EXPECT_TRUE(torch::equal(matrix_of(rounded, name), matrix)) << type << ", " << name;
    EXPECT_FALSE(torch::equal(before, model->layers[1]->attention->value->weight));
  }
}

TEST(Export, SaysWhatCannotBeExpressed) {
  for (const Variant& v : variants()) EXPECT_EQ(why_not_gguf(small(v.name)).find(v.name) != std::string::npos, v.gguf == nullptr) << v.name;
  ModelConfig c = small("softmax");
  c.norm = "sandwich";
  EXPECT_NE(why_not_gguf(c).find("sandwich"), std::string::npos);
}

TEST(Config, ErrorsNameFileLineKeyAndWhatIsAllowed) {
  const auto said = [](const std::string& text) {
    try {
      const Parsed parsed = parse_run_config(text, "run.toml");
      check(parsed.config, "run.toml", parsed.lines);
    } catch (const InputError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const auto has = [&](const std::string& text, std::initializer_list<const char*> parts) {
    const std::string sentence = said(text);
    for (const char* part : parts) EXPECT_NE(sentence.find(part), std::string::npos) << part << " in: " << sentence;
    EXPECT_EQ(sentence.find('\n'), std::string::npos);
  };
  has("[model]\nattention = 'sofmax'\n", {"run.toml, line 2", "model.attention", "sofmax", "sigmoid"});
  has("[model]\n\nlayers = 0\n", {"line 3", "model.layers = 0", "1 to 64"});
  has("[model]\nlayers = 2.5\n", {"line 2", "whole number"});
  has("[model]\nlayer = 2\n", {"line 2", "model.layer is no key", "layers"});
  has("[modle]\nlayers = 2\n", {"line 1", "'modle'", "[model]"});
  has("preset = 'huge'\n", {"line 1", "huge", "emergence"});
  has("[model\n", {"line 1", "no", "TOML"});
  has("[model]\nheads = 3\nkv_heads = 2\n[data]\nfolder = 'x'\n", {"run.toml, line 3", "kv_heads = 2 does not divide", "3"});
  has("[data]\ncontext = 64\n", {"data.folder"});
  EXPECT_EQ(said("preset = 'trial'\n[data]\nfolder = 'x'\n"), "no error");
  const RunConfig c = parse_run_config("preset = 'experts'\n[data]\nfolder = 'x'\n[training]\nrate = 0.001\n", "a").config;
  EXPECT_EQ(to_toml(parse_run_config(to_toml(c), "b").config), to_toml(c));
}

TEST(Config, PresetsHaveHeadsOf64AndThatOfTheExperimentsStaysAsItIs) {
  for (const Preset& p : presets()) {
    RunConfig c;
    c.data.folder = "x";
    p.apply(c);
    EXPECT_EQ(c.model.d_head, 64) << p.name;
    EXPECT_NO_THROW(check(c, p.name));
  }
  const RunConfig c = parse_run_config("preset = 'emergence'\n", "a").config;
  EXPECT_EQ(to_toml(c), to_toml({}));
  EXPECT_EQ(LanguageModel(c.model, 4096, c.data.context, 1)->n_parameter(), 4096 * 128 + 4 * (4 * 128 * 128 + 3 * 128 * 352 + 2 * 128) + 128);
}

}  // namespace
}  // namespace sinkscope::train
