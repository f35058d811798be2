#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#include <ggml.h>
#include <gguf.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <nlohmann/json.hpp>

#include "data/packing.h"
#include "data/prepare.h"
#include "data/token_file.h"
#include "data/tokenizer.h"
#include "io/sha256.h"
#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// Documents of made-up words, with what text has: capitals, numbers, indentation, empty lines, other scripts.
std::vector<std::string> some_documents(int n, unsigned seed = 7) {
  std::mt19937 random(seed);
  std::vector<std::string> words;
  for (int w = 0; w < 300; ++w) {
    std::string word;
    for (unsigned i = 0, n_syllable = 1 + random() % 3; i < n_syllable; ++i) word += std::string(1, "bdfgklmnprst"[random() % 12]) + "aeiou"[random() % 5];
    words.push_back(word);
  }
  const std::vector<std::string> between = {" ", " ", " ", " ", ", ", ".\n", ".\n\n    ", "\t", " (1913) ", " \u00e9t\u00e9 ", " \u65e5\u672c ", " <s> ", "  "};
  std::vector<std::string> documents;
  for (int d = 0; d < n; ++d) {
    std::string text = "Document " + std::to_string(d) + "\n\n";
    for (unsigned i = 0, n_word = 40 + random() % 80; i < n_word; ++i) text += words[random() % words.size()] + between[random() % between.size()];
    documents.push_back(text);
  }
  return documents;
}

std::string joined(const std::vector<std::string>& documents) {
  std::string text;
  for (const std::string& document : documents) text += (text.empty() ? "" : "\f") + document;
  return text;
}

class Folder : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sinkscope-test-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { fs::remove_all(folder); }
  std::string path(const std::string& name) const { return (folder / name).string(); }
  // The folder of tokens.
  std::string prepared(const std::string& text, const std::string& name = "tokens", uint32_t seed = 1) const {
    put(path("text.txt"), text);
    prepare({.texts = {path("text.txt")}, .folder = path(name), .n_vocab = 512, .seed = seed});
    return path(name);
  }
  fs::path folder;
};

std::string refusal(const auto& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

Tokenizer tokenizer_of(const fs::path& data) { return Tokenizer(content((data / "tokenizer.model").string()), "tokenizer.model"); }

using PrepareTest = Folder;
using TokenFileTest = Folder;
using VocabularyTest = Folder;
using PackingTest = Folder;

TEST_F(PrepareTest, DocumentsComeBackToTheByteEachBehindItsBos) {
  std::vector<std::string> documents = some_documents(60);
  const TokenFile data(prepared(joined(documents)));
  EXPECT_EQ(data.n_vocab(), 512);
  std::vector<std::string> found;
  for (size_t d = 0; d < data.document_starts().size(); ++d) {
    const size_t start = data.document_starts()[d], end = d + 1 < data.document_starts().size() ? data.document_starts()[d + 1] : data.tokens().size();
    EXPECT_EQ(data.tokens()[start], data.bos());
    found.push_back(data.vocabulary().decode(data.tokens().subspan(start + 1, end - start - 1)));
  }
  EXPECT_NE(found, documents) << "they must be shuffled";
  std::ranges::sort(found);
  std::ranges::sort(documents);
  EXPECT_EQ(found, documents);
  EXPECT_EQ(std::ranges::count(data.tokens(), data.bos()), 60);
}

TEST_F(PrepareTest, SameOptionsGiveSameFilesAndAnotherSeedAnotherOrder) {
  const std::string text = joined(some_documents(60));
  const std::string a = prepared(text, "a"), b = prepared(text, "b"), c = prepared(text, "c", 2);
  for (const char* file : {"tokenizer.model", "vocabulary.json", "tokens.bin", "documents.bin", "data.json"}) EXPECT_EQ(content(a + "/" + file), content(b + "/" + file)) << file;
  EXPECT_NE(content(a + "/tokens.bin"), content(c + "/tokens.bin"));
  EXPECT_EQ(content(a + "/tokens.bin").size(), content(c + "/tokens.bin").size());
}

TEST_F(PrepareTest, SaysWhereTheTokensComeFrom) {
  const std::string data = prepared(joined(some_documents(30)));
  const auto description = nlohmann::json::parse(content(data + "/data.json"));
  EXPECT_EQ(description["texts"][0]["name"], "text.txt");
  EXPECT_EQ(description["texts"][0]["sha256"], io::sha256_of_file(path("text.txt")));
  EXPECT_EQ(description["n_document"], 30);
  EXPECT_EQ(description["n_token"].get<size_t>() * 2, fs::file_size(data + "/tokens.bin"));
}

TEST_F(PrepareTest, ATextWithoutSeparatorsIsOneDocument) {
  std::string text;
  for (const std::string& document : some_documents(60)) text += document;
  const TokenFile data(prepared(text));
  EXPECT_EQ(data.document_starts().size(), 1u);
  EXPECT_EQ(data.vocabulary().decode(data.tokens()), text);
  EXPECT_EQ(data.validation().size(), data.tokens().size() / 20);
}

TEST_F(PrepareTest, AnyBytesSurvive) {
  std::string text = joined(some_documents(60)) + "\f";
  std::mt19937 random(3);
  std::string odd = "\0\xff\xfe\xc0\x80 caf\xe9 \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x96 \u2585 \ufffd \U0001f600 end\xe2"s;
  for (int i = 0; i < 4096; ++i) odd += static_cast<char>(random());
  std::erase(odd, '\f');
  const TokenFile data(prepared(text + odd));
  std::vector<uint16_t> tokens;
  tokenizer_of(folder / "tokens").encode(odd, tokens);
  EXPECT_EQ(data.vocabulary().decode(tokens), odd);
  EXPECT_TRUE(std::ranges::search(data.tokens(), tokens).begin() != data.tokens().end());
}

TEST_F(PrepareTest, ReportsProgressUpToTheEnd) {
  const std::string text = joined(some_documents(60));
  put(path("text.txt"), text);
  std::vector<std::string> said;
  int64_t last = 0;
  prepare({.texts = {path("text.txt")}, .folder = path("tokens"), .n_vocab = 512}, [&](const std::string& what, int64_t done, int64_t total) {
    if (said.empty() || said.back() != what) said.push_back(what);
    EXPECT_LE(done, total);
    EXPECT_EQ(total, static_cast<int64_t>(text.size()));
    last = done;
  });
  EXPECT_EQ(said, (std::vector<std::string>{"reading for the vocabulary", "training the vocabulary", "encoding"}));
  EXPECT_EQ(last, static_cast<int64_t>(text.size()) - 59);  // separators are no text
}

TEST_F(PrepareTest, WhatCannotBeIsRefusedInOneSentenceAndLeavesNothing) {
  put(path("short.txt"), "too short");
  put(path("empty.txt"), "\f\f");
  const auto said = [&](const std::string& text, int n_vocab = 512) {
    return refusal([&] { prepare({.texts = {path(text)}, .folder = path("tokens"), .n_vocab = n_vocab}); });
  };
  EXPECT_NE(said("short.txt").find("no vocabulary of 512 entries can be made of 9 bytes of text"), std::string::npos) << said("short.txt");
  EXPECT_NE(said("empty.txt").find("there is no text in"), std::string::npos);
  EXPECT_NE(said("none.txt").find("No such file"), std::string::npos) << said("none.txt");
  EXPECT_NE(said(".").find("Is a directory"), std::string::npos) << said(".");
  EXPECT_NE(said("short.txt", 100).find("give 512 to 65536"), std::string::npos) << said("short.txt", 100);
  EXPECT_FALSE(fs::exists(path("tokens")));
  EXPECT_THROW(prepare({.texts = {path("short.txt")}, .folder = path("short.txt")}), InputError);
  EXPECT_THROW(prepare({.texts = {}, .folder = path("tokens")}), UsageError);
}

TEST_F(PrepareTest, AFailureLeavesWhatWasThereBefore) {
  const std::string data = prepared(joined(some_documents(60)));
  const std::string before = content(data + "/tokens.bin");
  EXPECT_THROW(prepared("too short"), InputError);
  EXPECT_EQ(content(data + "/tokens.bin"), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(data), fs::directory_iterator()), 5);
}

TEST_F(TokenFileTest, TheLastTwentiethOfDocumentsIsForValidation) {
  const TokenFile data(prepared(joined(some_documents(60))));
  EXPECT_EQ(data.training().size() + data.validation().size(), data.tokens().size());
  EXPECT_EQ(data.training().size(), data.document_starts()[57]);
  EXPECT_EQ(data.validation().front(), data.bos());
}

TEST_F(TokenFileTest, DamagedFoldersAreRefusedInOneSentence) {
  const std::string data = prepared(joined(some_documents(30)));
  const auto said = [&] { return refusal([&] { TokenFile file(data); }); };
  EXPECT_EQ(said(), "no error");
  for (const char* file : {"vocabulary.json", "tokens.bin", "documents.bin", "data.json"}) {
    const std::string name = data + "/" + file, whole = content(name);
    fs::remove(name);
    EXPECT_NE(said().find("cannot read '" + name + "' (No such file or directory)"), std::string::npos) << said();
    put(name, "");
    EXPECT_NE(said().find(file), std::string::npos) << said();
    put(name, whole.substr(0, whole.size() / 2));
    EXPECT_NE(said().find(name + "' is"), std::string::npos) << said();
    std::string changed = whole;
    // Of data.json a byte of a checksum: its words about the texts say nothing of other files.
    const size_t at = file == std::string_view("data.json") ? whole.find("tokens.bin") + 20 : whole.size() / 2;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    put(name, changed);
    EXPECT_NE(said().find("prepare the texts again"), std::string::npos) << said();
    put(name, whole);
  }
  put(data + "/data.json", R"({"schema": "another"})");
  EXPECT_NE(said().find("is no sinkscope.train-data/1"), std::string::npos) << said();
  EXPECT_NE(refusal([&] { TokenFile file(path("nothing")); }).find("give a folder of tokens"), std::string::npos);
}

TEST_F(VocabularyTest, KnowsTheKindOfEachPiece) {
  const TokenFile data(prepared(joined(some_documents(60))));
  const std::span<const Piece> pieces = data.vocabulary().pieces();
  EXPECT_EQ(pieces[0].kind, PieceKind::unknown);
  EXPECT_EQ(pieces[data.vocabulary().bos()].kind, PieceKind::control);
  EXPECT_EQ(pieces[data.vocabulary().eos()].kind, PieceKind::control);
  EXPECT_EQ(std::ranges::count(pieces, PieceKind::byte, &Piece::kind), 256);
  EXPECT_EQ(std::ranges::count(pieces, PieceKind::normal, &Piece::kind), 512 - 3 - 256);
  EXPECT_THROW(data.vocabulary().decode(std::vector<uint16_t>{512}), InputError);
  EXPECT_THROW(Vocabulary("no model", "x"), InputError);
  EXPECT_THROW(Tokenizer("no model", "x"), InputError);
}

// llama.cpp's tokenizer on the vocabulary as an exporter writes it.
class LlamaVocabulary {
 public:
  LlamaVocabulary(const Vocabulary& vocabulary, const std::string& path) {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    const std::unique_ptr<gguf_context, void (*)(gguf_context*)> file(gguf_init_empty(), &gguf_free);
    std::vector<const char*> texts;
    std::vector<float> scores;
    std::vector<int32_t> kinds;
    for (const Piece& piece : vocabulary.pieces()) {
      texts.push_back(piece.text.c_str());
      scores.push_back(piece.score);
      kinds.push_back(static_cast<int32_t>(piece.kind));
    }
    gguf_set_val_str(file.get(), "general.architecture", "llama");
    gguf_set_val_str(file.get(), "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(file.get(), "tokenizer.ggml.tokens", texts.data(), texts.size());
    gguf_set_arr_data(file.get(), "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
    gguf_set_arr_data(file.get(), "tokenizer.ggml.token_type", GGUF_TYPE_INT32, kinds.data(), kinds.size());
    gguf_set_val_u32(file.get(), "tokenizer.ggml.bos_token_id", vocabulary.bos());
    gguf_set_val_u32(file.get(), "tokenizer.ggml.eos_token_id", vocabulary.eos());
    gguf_set_val_u32(file.get(), "tokenizer.ggml.unknown_token_id", vocabulary.unknown());
    gguf_set_val_bool(file.get(), "tokenizer.ggml.add_space_prefix", false);
    gguf_write_to_file(file.get(), path.c_str(), /*only_meta=*/true);
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    model_.reset(llama_model_load_from_file(path.c_str(), params));
  }
  bool loaded() const { return model_ != nullptr; }
  std::vector<uint16_t> encode(const std::string& text) const {
    std::vector<llama_token> tokens(text.size() + 1);
    const int n = llama_tokenize(llama_model_get_vocab(model_.get()), text.data(), static_cast<int>(text.size()), tokens.data(), static_cast<int>(tokens.size()),
                                 /*add_special=*/false, /*parse_special=*/false);
    return {tokens.begin(), tokens.begin() + std::max(n, 0)};
  }

 private:
  std::unique_ptr<llama_model, void (*)(llama_model*)> model_{nullptr, &llama_model_free};
};

void expect_same_tokens(const Vocabulary& vocabulary, const Tokenizer& tokenizer, const std::string& gguf, std::span<const std::string> texts) {
  const LlamaVocabulary llama(vocabulary, gguf);
  ASSERT_TRUE(llama.loaded());
  int n_different = 0;
  for (const std::string& text : texts) {
    std::vector<uint16_t> tokens;
    tokenizer.encode(text, tokens);
    if (llama.encode(text) == tokens) continue;
    if (++n_different <= 3) ADD_FAILURE() << text;
  }
  EXPECT_EQ(n_different, 0) << "of " << texts.size();
}

TEST_F(VocabularyTest, LlamaCppAgrees) {
  const std::vector<std::string> documents = some_documents(60);
  const TokenFile data(prepared(joined(documents)));
  expect_same_tokens(data.vocabulary(), tokenizer_of(folder / "tokens"), path("vocabulary.gguf"), documents);
}

// On the corpus of scripts/fetch-text, where it has been prepared: SINKSCOPE_TRAIN_DATA names the folder.
TEST_F(VocabularyTest, LlamaCppAgreesOnDocumentsOfTheCorpus) {
  const char* name = std::getenv("SINKSCOPE_TRAIN_DATA");
  if (!name) GTEST_SKIP() << "SINKSCOPE_TRAIN_DATA names no prepared folder";
  const TokenFile data{std::string(name)};
  std::vector<std::string> documents;
  const std::span<const uint64_t> starts = data.document_starts();
  for (size_t d = 0; d + 1 < std::min<size_t>(starts.size(), 1001); ++d)
    documents.push_back(data.vocabulary().decode(data.tokens().subspan(starts[d], starts[d + 1] - starts[d])));
  expect_same_tokens(data.vocabulary(), tokenizer_of(name), path("vocabulary.gguf"), documents);
}

// Batches of a data set, whose tokens without BOS are known.
class Rows {
 public:
  Rows(const TokenFile& data, const std::string& kind, uint64_t seed = 5) : data_(data), packing_(data, kind, seed) {}
  std::vector<std::vector<int64_t>> batch(int64_t step, int n_row = 8) const {
    std::vector<int64_t> tokens(static_cast<size_t>(n_row) * kColumns);
    packing_.batch(step, n_row, kColumns - 1, tokens);
    return rows(tokens);
  }
  std::vector<std::vector<int64_t>> validation(int64_t first, int n_row) const {
    std::vector<int64_t> tokens(static_cast<size_t>(n_row) * kColumns);
    packing_.validation(first, n_row, kColumns - 1, tokens);
    return rows(tokens);
  }
  int64_t n_bos(const std::vector<int64_t>& row) const { return std::ranges::count(row, data_.bos()); }
  // Whether `row` stands so in `part`, which is read round and round, without BOS where `skip`.
  bool follows(std::span<const uint16_t> part, std::vector<int64_t> row, bool skip) const {
    std::vector<int64_t> all(part.begin(), part.end());
    if (skip) std::erase(all, data_.bos());
    all.insert(all.end(), all.begin(), all.begin() + kColumns);
    return std::ranges::search(all, row).begin() != all.end();
  }
  static constexpr int kColumns = 33;

 private:
  static std::vector<std::vector<int64_t>> rows(const std::vector<int64_t>& tokens) {
    std::vector<std::vector<int64_t>> all;
    for (auto at = tokens.begin(); at != tokens.end(); at += kColumns) all.emplace_back(at, at + kColumns);
    return all;
  }
  const TokenFile& data_;
  Packing packing_;
};

TEST_F(PackingTest, KindsPutBosWhereTheyPromise) {
  const TokenFile data(prepared(joined(some_documents(60))));
  const std::span<const uint16_t> part = data.training();
  int64_t n_bos_of_documents = 0;
  for (int step = 0; step < 20; ++step) {
    for (const int64_t p : {0, 3, 31}) {
      const Rows fixed(data, "fixed:" + std::to_string(p));
      for (std::vector<int64_t> row : fixed.batch(step)) {
        EXPECT_EQ(row[p], data.bos());
        EXPECT_EQ(fixed.n_bos(row), 1);
        row.erase(row.begin() + p);
        EXPECT_TRUE(fixed.follows(part, row, true));
      }
    }
    EXPECT_EQ(Rows(data, "context").batch(step), Rows(data, "fixed:0").batch(step));
    const Rows none(data, "none"), document(data, "document"), random(data, "random");
    for (const std::vector<int64_t>& row : none.batch(step)) {
      EXPECT_EQ(none.n_bos(row), 0);
      EXPECT_TRUE(none.follows(part, row, true));
    }
    for (const std::vector<int64_t>& row : document.batch(step)) {
      n_bos_of_documents += document.n_bos(row);
      EXPECT_TRUE(document.follows(part, row, false));
    }
    for (std::vector<int64_t> row : random.batch(step)) {
      EXPECT_EQ(random.n_bos(row), 0);
      row.erase(row.begin());
      EXPECT_TRUE(random.follows(part, row, true));
    }
  }
  EXPECT_GT(n_bos_of_documents, 0);
}

TEST_F(PackingTest, RandomFirstTokensAreSpreadOverAllTokensOfText) {
  const TokenFile data(prepared(joined(some_documents(60))));
  const Rows random(data, "random");
  std::vector<int> seen(data.n_vocab());
  for (int step = 0; step < 1000; ++step)
    for (const std::vector<int64_t>& row : random.batch(step)) ++seen[row[0]];
  EXPECT_EQ(seen[0] + seen[1] + seen[2], 0);
  EXPECT_GE(*std::min_element(seen.begin() + 3, seen.end()), 1);   // 15.7 expected of each
  EXPECT_LE(std::ranges::max(seen), 45);
}

TEST_F(PackingTest, BatchesDependOnSeedStepAndRowAlone) {
  const TokenFile data(prepared(joined(some_documents(60))));
  for (const char* kind : {"context", "document", "none", "fixed:2", "random"}) {
    const Rows whole(data, kind), other_seed(data, kind, 6);
    for (int step = 0; step < 5; ++step) whole.batch(step);
    const Rows resumed(data, kind);
    EXPECT_EQ(whole.batch(5), resumed.batch(5)) << kind;
    EXPECT_NE(whole.batch(5), whole.batch(6)) << kind;
    EXPECT_NE(whole.batch(5), other_seed.batch(5)) << kind;
    std::vector<std::vector<int64_t>> first = whole.batch(5);
    first.resize(3);
    EXPECT_EQ(whole.batch(5, 3), first) << kind;
    EXPECT_NE(first[0], first[1]) << kind;
  }
}

TEST_F(PackingTest, ValidationRowsAreFixedAndOfTheValidationPart) {
  const TokenFile data(prepared(joined(some_documents(100))));
  for (const char* kind : {"context", "document", "none", "fixed:2", "random"}) {
    const Packing packing(data, kind, 1);
    const int64_t n = packing.n_validation_row(Rows::kColumns - 1);
    EXPECT_EQ(n, (static_cast<int64_t>(data.validation().size()) - 1) / (Rows::kColumns - 1));
    const Rows rows(data, kind, 5), other_seed(data, kind, 6);
    const std::vector<std::vector<int64_t>> all = rows.validation(0, static_cast<int>(n));
    EXPECT_EQ(all, other_seed.validation(0, static_cast<int>(n))) << kind;
    EXPECT_EQ(rows.validation(n, 1)[0], all[0]) << kind;
    EXPECT_EQ(rows.validation(2, 1)[0], all[2]) << kind;
  }
  const Rows document(data, "document");
  const std::vector<std::vector<int64_t>> side_by_side = document.validation(0, 2);
  for (int i = 0; i < Rows::kColumns; ++i) {
    EXPECT_EQ(side_by_side[0][i], data.validation()[i]);
    EXPECT_EQ(side_by_side[1][i], data.validation()[i + Rows::kColumns - 1]);
  }
}

TEST_F(PackingTest, WhatCannotBeIsRefusedInOneSentence) {
  const TokenFile data(prepared(joined(some_documents(60))));
  EXPECT_EQ(refusal([&] { Packing(data, "rows", 1); }), "'rows' is no packing; use one of: context, document, none, fixed:P, random");
  for (const char* name : {"fixed", "fixed:", "fixed:x", "fixed:-1", "fixed:1x", "fixed:P"}) EXPECT_THROW(Packing(data, name, 1), UsageError) << name;
  std::vector<int64_t> to(9);
  EXPECT_NE(refusal([&] { Packing(data, "fixed:8", 1).batch(0, 1, 8, to); }).find("position 8 is not in a context of 8 tokens"), std::string::npos);
  to.resize(100001);
  EXPECT_NE(refusal([&] { Packing(data, "none", 1).batch(0, 1, 100000, to); }).find("a context of 100000 needs 100001"), std::string::npos);
  EXPECT_NE(refusal([&] { Packing(data, "none", 1).n_validation_row(100000); }).find("the validation part"), std::string::npos);
  EXPECT_THROW(Packing(data, "none", 1).batch(0, 1, 8, to), InternalError);
  EXPECT_THROW(Packing(data, "none", 1).batch(0, 0, 8, {}), UsageError);
}

}  // namespace
}  // namespace sinkscope::train
