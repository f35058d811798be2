// Models with planted sinks, outliers and experts: explain finds exactly these, and ablate proves them.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "planted.h"
#include "sinkscope/ablate.h"
#include "sinkscope/error.h"
#include "sinkscope/explain.h"

namespace sinkscope {
namespace {

namespace fs = std::filesystem;
using namespace planted;

class Planted : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder() = fs::temp_directory_path() / ("sinkscope-planted-" + std::to_string(::getpid()));
    fs::create_directory(folder());
    write_gpt2(folder() / "gpt2.gguf");
    write_moe(folder() / "moe.gguf");
    write_bert(folder() / "bert.gguf");
    std::ofstream file(folder() / "tokens.json");
    file << "[";
    const auto all = prompts(6);
    for (size_t p = 0; p < all.size(); ++p) {
      file << (p ? ",[" : "[");
      for (size_t i = 0; i < all[p].size(); ++i) file << (i ? "," : "") << all[p][i];
      file << "]";
    }
    file << "]";
  }
  static void TearDownTestSuite() { fs::remove_all(folder()); }
  static fs::path& folder() {
    static fs::path path;
    return path;
  }

  static void set(PromptOptions& o, const char* model) {
    o.model = folder() / model;
    o.tokens = folder() / "tokens.json";
    o.threads = 2;
  }
  static Explanation explain_model(const char* model) {
    ExplainOptions o;
    set(o, model);
    return explain(o);
  }
  static Ablations ablate_model(const char* model, std::vector<std::string> edits, int controls = 2) {
    AblateOptions o;
    set(o, model);
    o.edits = std::move(edits);
    o.controls = controls;
    return ablate(o);
  }
};

std::vector<int> positions(const HeadCause& head) {
  std::vector<int> all;
  for (const HeadSink& s : head.where) {
    EXPECT_EQ(s.share, 1) << s.position;
    all.push_back(s.position);
  }
  std::ranges::sort(all);
  return all;
}

TEST_F(Planted, EverySinkIsFoundAndNoOther) {
  const Explanation e = explain_model("gpt2.gguf");
  ASSERT_EQ(e.layers.size(), kLayers + 1u);
  const std::vector<HeadCause>& heads = e.layers[1].heads;
  ASSERT_EQ(heads.size(), 4u);
  EXPECT_EQ(positions(heads[0]), std::vector({0}));
  EXPECT_EQ(positions(heads[1]), std::vector({7}));
  EXPECT_EQ(positions(heads[2]), std::vector({12, 28, 44}));  // the stop at 60 is seen by too few
  for (const HeadSink& s : heads[2].where) EXPECT_EQ(s.token, kStop);
  EXPECT_EQ(positions(heads[3]), std::vector<int>());
  for (size_t l = 2; l < e.layers.size(); ++l)
    for (const HeadCause& h : e.layers[l].heads) EXPECT_TRUE(h.where.empty()) << l << "." << h.head;
  // What makes them: the queries are the same, the keys of others are 0.
  EXPECT_GT(heads[0].logit, 10);
  EXPECT_LT(std::abs(heads[0].other_logit), 1);
  EXPECT_NEAR(heads[0].cos, 1, 1e-4);
}

TEST_F(Planted, AnEncoderIsMeasuredWithItsMarks) {
  std::ofstream text(folder() / "rain.txt");
  for (int i = 0; i < 200; ++i) text << "rain falls on roofs rain" << (i % 8 == 3 ? ", " : " ");
  text.close();
  ExplainOptions o;
  set(o, "bert.gguf");
  o.tokens.clear();
  o.texts = {folder() / "rain.txt"};
  const Explanation e = explain(o);
  const std::vector<HeadCause>& heads = e.layers[1].heads;
  ASSERT_EQ(heads.size(), 4u);
  ASSERT_EQ(positions(heads[0]), std::vector({0}));
  ASSERT_EQ(positions(heads[1]), std::vector({63}));
  EXPECT_TRUE(heads[3].where.empty());
  EXPECT_FALSE(heads[2].where.empty());
  for (const HeadSink& s : heads[2].where) EXPECT_EQ(s.text, " ,");
  ASSERT_EQ(e.profile.sinks.size(), 0u);  // one head of four is 25 %, and no more
  EXPECT_EQ(heads[0].where[0].text, "[CLS]");
  EXPECT_EQ(heads[1].where[0].text, "[SEP]");
  EXPECT_TRUE(heads[0].where[0].special && heads[1].where[0].special);
  EXPECT_FALSE(heads[2].where[0].special);
}

TEST_F(Planted, TheMassiveActivationIsFoundWhereItIs) {
  const Explanation e = explain_model("gpt2.gguf");
  ASSERT_EQ(std::ranges::count_if(e.outliers, &Outlier::massive), 1);
  const Outlier& o = *std::ranges::find_if(e.outliers, &Outlier::massive);
  EXPECT_EQ(o.dim, kMassiveDim);
  EXPECT_EQ(o.position, 0);
  EXPECT_EQ(o.token, kBos);
  EXPECT_EQ(o.n_prompt, 6);
  EXPECT_NEAR(std::abs(o.value), kMassiveValue, kMassiveValue / 4);
  EXPECT_EQ(o.first_layer, kRisesIn);
  EXPECT_EQ(o.last_layer, kFallsIn - 1);
  EXPECT_EQ(o.rises_in, kRisesIn);
  EXPECT_EQ(o.rises_by, "mlp");
  EXPECT_EQ(o.falls_in, kFallsIn);
  EXPECT_EQ(o.falls_by, "mlp");
  EXPECT_EQ(e.onset, kRisesIn);
  EXPECT_TRUE(e.experts.empty());
  EXPECT_TRUE(e.missing.empty()) << e.missing[0];
}

TEST_F(Planted, TheExpertsOfSinksAreFoundInEveryLayer) {
  const Explanation e = explain_model("moe.gguf");
  std::vector<ExpertUse> supers;
  std::ranges::copy_if(e.experts, std::back_inserter(supers), &ExpertUse::is_super);
  ASSERT_EQ(supers.size(), 2u);
  for (int l = 0; l < kExpertLayers; ++l) {
    const ExpertUse& x = supers[l];
    EXPECT_EQ(x.layer, l);
    EXPECT_EQ(x.expert, kExpert);
    EXPECT_EQ(x.sink_share, 1);
    EXPECT_EQ(x.other_share, 0);
    EXPECT_GT(x.sink_weight, 0.99);
    EXPECT_LT(x.other_weight, 0.1);
  }
  ASSERT_TRUE(e.d_sink);
  for (const HeadCause& h : e.layers[3].heads) EXPECT_EQ(positions(h), std::vector({0}));
  // Without the experts the heads of layer 2 see nothing to sink on; those of the other layers do not change.
  EXPECT_NEAR(*e.d_sink, 1.0 / 3, 0.04);
}

TEST_F(Planted, EditsThatChangeNothingChangeNothing) {
  std::ofstream(folder() / "no-sink.json") << nlohmann::json(std::vector(kLayers, std::vector(4, -1e30)));
  const std::string file = (folder() / "no-sink.json").string();
  const Ablations a = ablate_model("gpt2.gguf", {"scale:positions=0,gamma=1", "scale:positions=3-9,gamma=1,layers=0,heads=0.2", "act:beta=1", "clamp:dims=5,limit=1e30",
                                                 "clamp:dims=0-63,limit=1e30,of=mlp", "sink-logits:file=" + file, "first:token=" + std::to_string(kBos), "copies:count=1", "move:to=0",
                                                 "act:beta=1+clamp:dims=5,limit=1e30+copies:count=1"}, 0);
  for (const Ablation& e : a.edits) {
    EXPECT_EQ(e.change.loss_change, 0) << e.edit;
    EXPECT_EQ(e.change.kl, 0) << e.edit;
    EXPECT_EQ(e.change.same_top, 100) << e.edit;
    EXPECT_EQ(e.change.sink_rate, a.sink_rate) << e.edit;
  }
}

TEST_F(Planted, EditsCompose) {
  const Ablations a = ablate_model("moe.gguf", {"mask:positions=0+off-by-one", "off-by-one:layers=2", "copies:count=3+copies:count=2", "act:beta=0.2,layers=0+act:beta=0.9,layers=2",
                                                "silence:heads=0.0", "silence:heads=2.1", "silence:heads=0.0/2.1", "silence:heads=0.0+silence:heads=2.1"}, 1);
  EXPECT_EQ(a.edits[0].control_of, "positions");  // the normalisation stays
  EXPECT_EQ(a.edits[1].control_of, "layers");
  EXPECT_EQ(a.edits[6].change.loss, a.edits[7].change.loss);
  EXPECT_NE(a.edits[4].change.loss, a.edits[7].change.loss);
  EXPECT_NE(a.edits[5].change.loss, a.edits[7].change.loss);
  for (const char* spec : {"act:beta=0.2+act:beta=0.9", "off-by-one+sink-logits:file=x.json"}) {
    SCOPED_TRACE(spec);
    EXPECT_THROW(ablate_model("gpt2.gguf", {spec}), UsageError);
  }
}

TEST_F(Planted, WhatAnMlpAddsIsFoundUnderAnyName) {
  // Without the massive activation of position 0 the heads of layer 2 see nothing; the experts' layers name no ffn_out.
  const Ablations a = ablate_model("moe.gguf", {"zero:dims=5,positions=0,layers=0/1,of=mlp"});
  EXPECT_NEAR(a.edits[0].change.sink_rate, 100.0 / 3, 1e-3);
  ASSERT_TRUE(a.edits[0].control);
  EXPECT_NEAR(a.edits[0].control->sink_rate, a.sink_rate, 1e-3);
}

TEST_F(Planted, BatchesDoNotMatter) {
  const auto explained = [&](int batch) {
    ExplainOptions o;
    set(o, "gpt2.gguf");
    o.batch = batch;
    return explain(o);
  };
  const Explanation whole = explained(512), parts = explained(5);
  for (size_t l = 1; l < whole.layers.size(); ++l)
    for (size_t h = 0; h < whole.layers[l].heads.size(); ++h) {
      const HeadCause &a = whole.layers[l].heads[h], &b = parts.layers[l].heads[h];
      for (const auto field : {&HeadCause::query_norm, &HeadCause::key_norm, &HeadCause::other_key_norm, &HeadCause::cos, &HeadCause::other_cos, &HeadCause::logit,
                               &HeadCause::other_logit, &HeadCause::null_mass, &HeadCause::output_share, &HeadCause::entropy})
        EXPECT_NEAR(a.*field, b.*field, 1e-4 * std::abs(a.*field) + 1e-6) << l << "." << h;
    }
  ASSERT_EQ(whole.outliers.size(), parts.outliers.size());
  EXPECT_EQ(whole.outliers[0].rises_in, parts.outliers[0].rises_in);
}

TEST_F(Planted, EditsProveTheCause) {
  const Ablations a = ablate_model("moe.gguf", {"silence-experts:experts=0.2/1.2", "zero:dims=5,positions=0,layers=1", "mask:positions=0", "scale:positions=0,gamma=0"});
  ASSERT_EQ(a.edits.size(), 4u);
  EXPECT_NEAR(a.sink_rate, 100.0 * 2 / 3, 1e-3);  // layers 0 and 2
  for (int i : {0, 1}) {
    EXPECT_NEAR(a.edits[i].change.sink_rate, 100.0 / 3, 1e-3) << a.edits[i].edit;
    ASSERT_TRUE(a.edits[i].control);
    EXPECT_NEAR(a.edits[i].control->sink_rate, a.sink_rate, 1e-3) << a.edits[i].edit;
  }
  EXPECT_EQ(a.edits[0].control_of, "experts");
  EXPECT_EQ(a.edits[1].control_of, "dimensions");
  EXPECT_EQ(a.edits[2].change.sink_rate, 0);
  EXPECT_EQ(a.edits[2].change.loss_change, a.edits[3].change.loss_change);  // no weight is no sight
}

TEST_F(Planted, LearnedSinksOfLogitZeroAreSoftmaxOffByOne) {
  std::ofstream(folder() / "logits.json") << "[[0,0,0,0],[0,0,0,0],[0,0,0,0],[0,0,0,0],[0,0,0,0]]";
  const Ablations a = ablate_model("gpt2.gguf", {"off-by-one", "sink-logits:file=" + (folder() / "logits.json").string()});
  EXPECT_GT(a.edits[0].change.kl, 0);
  EXPECT_EQ(a.edits[0].change.loss_change, a.edits[1].change.loss_change);
  EXPECT_EQ(a.edits[0].change.kl, a.edits[1].change.kl);
  EXPECT_FALSE(a.edits[0].control);
}

TEST_F(Planted, CalmingTakesSinksButTheFirst) {
  const Ablations a = ablate_model("gpt2.gguf", {"act:beta=0,layers=0,heads=0.0", "act:beta=0,layers=0,heads=0.1", "act:beta=0.5,layers=0,heads=0.1"});
  EXPECT_EQ(a.edits[0].change.loss_change, 0);  // head 0 sinks on the first key alone
  EXPECT_GT(a.edits[1].change.kl, a.edits[2].change.kl);
  EXPECT_NE(a.edits[2].change.loss_change, 0);
  EXPECT_EQ(a.edits[1].control_of, "keys");
}

TEST_F(Planted, WrongEditsAreOneSentence) {
  const auto refused = [](const std::string& spec) {
    try {
      ablate_model("gpt2.gguf", {spec});
    } catch (const UsageError& e) {
      return std::string(e.what());
    }
    ADD_FAILURE() << spec << " was taken";
    return std::string();
  };
  EXPECT_NE(refused("masc:positions=0").find("is no edit; use one of: mask, scale"), std::string::npos);
  EXPECT_NE(refused("mask").find("needs positions=...; give it"), std::string::npos);
  EXPECT_NE(refused("mask:positions=a").find("is no list of whole numbers"), std::string::npos);
  EXPECT_NE(refused("mask:positions=0,gamma=2").find("takes no 'gamma=2'"), std::string::npos);
  EXPECT_NE(refused("mask:positions=64").find("there is no position 64 here; use 0 to 63"), std::string::npos);
  EXPECT_NE(refused("silence:heads=9.0").find("there is no head 9.0 here"), std::string::npos);
  EXPECT_NE(refused("silence-experts:experts=0.0").find("has no experts"), std::string::npos);
  EXPECT_NE(refused("scale:positions=0,gamma=-1").find("negative"), std::string::npos);
}

}  // namespace
}  // namespace sinkscope
