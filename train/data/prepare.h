// Texts become tokens once: a vocabulary is trained on them, and they are written as a folder that TokenFile maps.
//
//   tokenizer.model   sentencepiece: byte-pair encoding, a token for each byte
//   vocabulary.json   its pieces, scores and kinds
//   tokens.bin        uint16 [n_token]: BOS and the tokens of a document, for each document
//   documents.bin     uint64 [n_document + 1]: where documents start in tokens.bin; the last is n_token
//   data.json         sinkscope.train-data/1: sizes, ids, the texts, and the sha256 of the files above
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace sinkscope::train {

struct PrepareOptions {
  std::vector<std::string> texts;  // files of any bytes; a form feed stands between documents
  std::string folder;              // made where there is none; its files appear together or not at all
  int n_vocab = 4096;              // entries: 512 to 65,536
  uint32_t seed = 1;               // of the order of documents
};

struct Prepared {
  int n_vocab = 0;
  int64_t n_token = 0;  // BOS included
  int64_t n_document = 0;
};

// What is going on, for a progress bar: bytes of all texts.
using Progress = std::function<void(const std::string& what, int64_t done, int64_t total)>;

// The same options and texts give the same files. Documents are shuffled, so that any part of the tokens is of all
// texts. Throws UsageError for options that cannot be, InputError for texts and places that cannot be used.
Prepared prepare(const PrepareOptions& options, const Progress& progress = {});

}  // namespace sinkscope::train
