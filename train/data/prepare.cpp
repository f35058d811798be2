#include "data/prepare.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <sentencepiece_trainer.h>

#include "data/files.h"
#include "data/mix.h"
#include "data/tokenizer.h"
#include "io/places.h"
#include "io/sha256.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

namespace fs = std::filesystem;

constexpr char kBetweenDocuments = '\f';
constexpr int kLeastVocab = 512, kMostVocab = UINT16_MAX + 1;

std::string read(const std::string& path) {
  const auto fail = [&](int reason) { throw InputError(fmt::format("cannot read '{}' ({}); give text files", path, std::strerror(reason))); };
  if (fs::is_directory(path)) fail(EISDIR);
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(errno);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return bytes;
}

void check(const PrepareOptions& options) {
  if (options.texts.empty()) throw UsageError("there is no text to prepare; give one or more text files");
  if (options.folder.empty()) throw UsageError("there is no folder for the tokens; give one");
  if (options.n_vocab < kLeastVocab || options.n_vocab > kMostVocab)
    throw UsageError(fmt::format("a vocabulary of {} entries is not possible; give {} to {}", options.n_vocab, kLeastVocab, kMostVocab));
}

std::vector<std::string_view> documents(std::span<const std::string> texts, uint32_t seed) {
  std::vector<std::string_view> all;
  for (const std::string_view text : texts) {
    std::string_view rest = text;
    while (!rest.empty()) {
      const std::string_view document = rest.substr(0, rest.find(kBetweenDocuments));
      if (!document.empty()) all.push_back(document);
      rest.remove_prefix(std::min(rest.size(), document.size() + 1));
    }
  }
  for (size_t n = all.size(); n > 1; --n) std::swap(all[n - 1], all[below(n, mix(seed, 0, n))]);
  return all;
}

// A document's lines, each with the empty lines behind it, so that pieces of several line feeds can be learned.
class Lines : public sentencepiece::SentenceIterator {
 public:
  Lines(std::span<const std::string_view> all, int64_t n_byte, const Progress& progress) : documents_(all), n_byte_(n_byte), progress_(progress) { Next(); }

  bool done() const override { return line_.empty(); }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }
  void Next() override {
    if (rest_.empty() && !documents_.empty()) {
      rest_ = documents_.front();
      documents_ = documents_.subspan(1);
      if (progress_) progress_("reading for the vocabulary", done_, n_byte_);
    }
    const size_t end = std::min(rest_.find_first_not_of('\n', std::min(rest_.find('\n'), rest_.size())), rest_.size());
    line_ = rest_.substr(0, end);
    rest_.remove_prefix(end);
    done_ += static_cast<int64_t>(end);
    if (done() && progress_) progress_("training the vocabulary", n_byte_, n_byte_);
  }

 private:
  std::span<const std::string_view> documents_;
  std::string_view rest_;
  std::string line_;
  int64_t done_ = 0, n_byte_;
  const Progress& progress_;
};

// Text comes back as it was: nothing is normalised, and no space is put first.
std::string train_vocabulary(std::span<const std::string_view> all, int64_t n_byte, int n_vocab, const Progress& progress) {
  Lines lines(all, n_byte, progress);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"model_type", "bpe"},
       {"vocab_size", std::to_string(n_vocab)},
       {"byte_fallback", "true"},
       {"max_sentence_length", std::to_string(1 << 30)},  // longer lines would not be read
       {"split_digits", "true"},
       {"allow_whitespace_only_pieces", "true"},
       {"normalization_rule_name", "identity"},
       {"add_dummy_prefix", "false"},
       {"remove_extra_whitespaces", "false"},
       {"unk_id", std::to_string(Vocabulary::kUnknown)},
       {"bos_id", std::to_string(Vocabulary::kBos)},
       {"eos_id", std::to_string(Vocabulary::kEos)},
       {"pad_id", "-1"},
       {"minloglevel", "3"}},
      &lines, &model);
  if (!status.ok()) {
    std::string_view reason = status.error_message();  // "FILE(LINE) [CONDITION] WHY"
    if (const size_t why = reason.find("] "); why != reason.npos && why + 2 < reason.size()) reason.remove_prefix(why + 2);
    throw InputError(fmt::format("no vocabulary of {} entries can be made of {} bytes of text (sentencepiece: {}); give more text or a smaller vocabulary",
                                 n_vocab, n_byte, reason.substr(0, reason.find_last_not_of('.') + 1)));
  }
  return model;
}

std::string_view bytes_of(const auto& values) { return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]}; }

Prepared write(const PrepareOptions& options, const Progress& progress) {
  AtomicFile model_file(in(options.folder, kModelFile)), vocabulary_file(in(options.folder, kVocabularyFile)), tokens_file(in(options.folder, kTokensFile)),
      documents_file(in(options.folder, kDocumentsFile)), description_file(in(options.folder, kDescriptionFile));

  std::vector<std::string> texts;  // their bytes
  nlohmann::ordered_json described = nlohmann::ordered_json::array();
  int64_t n_byte = 0;
  for (const std::string& path : options.texts) {
    const std::string& bytes = texts.emplace_back(read(path));
    described.push_back({{"name", fs::path(path).filename().string()}, {"bytes", bytes.size()}, {"sha256", io::sha256(bytes)}});
    n_byte += static_cast<int64_t>(bytes.size());
  }
  const std::vector<std::string_view> all = documents(texts, options.seed);
  if (all.empty()) throw InputError(fmt::format("there is no text in '{}'; give text files that are not empty", fmt::join(options.texts, "', '")));

  const std::string model = train_vocabulary(all, n_byte, options.n_vocab, progress);
  const Tokenizer tokenizer(model, kModelFile);
  const std::string pieces = Vocabulary::json_of(tokenizer.pieces());
  const Vocabulary vocabulary(pieces, kVocabularyFile);
  std::vector<uint16_t> tokens;
  std::vector<uint64_t> starts;
  int64_t done = 0;
  for (const std::string_view document : all) {
    starts.push_back(tokens.size());
    tokens.push_back(vocabulary.bos());
    tokenizer.encode(document, tokens);
    done += static_cast<int64_t>(document.size());
    if (progress) progress("encoding", done, n_byte);
  }
  starts.push_back(tokens.size());

  const nlohmann::ordered_json description = {
      {"schema", kSchema}, {"n_vocab", vocabulary.size()}, {"bos", vocabulary.bos()}, {"eos", vocabulary.eos()}, {"unknown", vocabulary.unknown()},
      {"n_token", tokens.size()}, {"n_document", all.size()}, {"seed", options.seed}, {"texts", described},
      {"sha256", {{kModelFile, io::sha256(model)}, {kVocabularyFile, io::sha256(pieces)}, {kTokensFile, io::sha256(bytes_of(tokens))}, {kDocumentsFile, io::sha256(bytes_of(starts))}}}};
  model_file.write(model);
  vocabulary_file.write(pieces);
  tokens_file.write(bytes_of(tokens));
  documents_file.write(bytes_of(starts));
  description_file.write(description.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  AtomicFile* const together[] = {&model_file, &vocabulary_file, &tokens_file, &documents_file, &description_file};
  commit_together(together);
  return {.n_vocab = vocabulary.size(), .n_token = static_cast<int64_t>(tokens.size()), .n_document = static_cast<int64_t>(all.size())};
}

}  // namespace

Prepared prepare(const PrepareOptions& options, const Progress& progress) {
  check(options);
  const bool is_new = io::make_folder(options.folder);
  try {
    return write(options, progress);
  } catch (...) {
    std::error_code ignored;
    if (is_new) fs::remove(options.folder, ignored);
    throw;
  }
}

}  // namespace sinkscope::train
