// How contexts are filled from the tokens of documents, and where BOS stands in them: what sinks depend on most.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/token_file.h"

namespace sinkscope::train {

// The names of all kinds, for help and errors:
//   context    BOS first in each context and nowhere else
//   document   BOS where documents start
//   none       no BOS anywhere
//   fixed:P    BOS at position P (from 0) of each context and nowhere else
//   random     the first token is any token of text, each as likely; no BOS
std::vector<std::string> packing_names();
// Throws UsageError for a kind that there is not, and for a position that is not in a context of n_token tokens.
void check_packing(const std::string& kind, int n_token);

// Batches as a pure function of (seed, step, row): a run that goes on sees what an uninterrupted one sees. All kinds
// start their rows at the same places of the tokens. Where BOS is left out between documents, they follow each other
// with nothing in between; behind the last token comes the first again.
class Packing {
 public:
  // Throws UsageError for a kind that there is not. `data` must outlive this.
  Packing(const TokenFile& data, const std::string& kind, uint64_t seed);

  // Fills [n_row, n_token + 1]: inputs are columns 0..n_token-1, targets 1..n_token. Rows start at random places of
  // the training part. Throws InputError where the data are too short, UsageError where P is beyond the context.
  void batch(int64_t step, int n_row, int n_token, std::span<int64_t> to) const;

  // The same from the validation part: rows number `first_row` and on of n_validation_row(n_token) rows side by side
  // (beyond them, the first follows the last); the seed plays no part.
  void validation(int64_t first_row, int n_row, int n_token, std::span<int64_t> to) const;
  bool starts_with_bos() const { return bos_at_documents_ || bos_position_ == 0; }
  int64_t n_validation_row(int n_token) const;  // throws InputError where there is none

 private:
  void check(std::span<const uint16_t> part, const char* name, int n_row, int n_token, size_t n_to) const;
  void fill(std::span<const uint16_t> part, size_t start, uint64_t random, std::span<int64_t> row) const;

  const TokenFile& data_;
  uint64_t seed_;
  bool bos_at_documents_ = false, random_first_ = false;
  int64_t bos_position_ = -1;  // -1: none
};

}  // namespace sinkscope::train
