// The files of a prepared folder; prepare.h says what they hold.
#pragma once

#include <string>

namespace sinkscope::train {

inline constexpr const char *kModelFile = "tokenizer.model", *kVocabularyFile = "vocabulary.json", *kTokensFile = "tokens.bin", *kDocumentsFile = "documents.bin",
                            *kDescriptionFile = "data.json", *kSchema = "sinkscope.train-data/1";

inline std::string in(const std::string& folder, const char* file) { return folder + "/" + file; }

}  // namespace sinkscope::train
