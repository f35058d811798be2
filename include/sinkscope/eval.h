// What a KV policy costs: a text through a model once for each policy, against the same model that keeps everything.
// The JSON: docs/json.md. Policies and positions: docs/streaming.md.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sinkscope/profile.h"
#include "sinkscope/session.h"

namespace sinkscope {

struct EvalOptions {
  std::string model;                  // GGUF file, or a name of scripts/fetch-model
  std::string text;                   // file; "-" is standard input
  std::string task = "text";          // text: predict each token; needle, lines: answer questions about a made-up text
  uint32_t seed = 1;                  // of that
  std::vector<std::string> policies = {"streaming"};
  std::vector<int> budgets = {512};   // rows of each KV head, sinks included; each policy with each of them
  std::vector<std::string> kv_budgets;  // in bytes, as in 8MiB: in place of budgets
  std::vector<int> sinks = {4};       // of streaming: first rows that are never dropped; each with each
  std::string protect = "auto";       // rows that no policy but window drops, and no type rounds: first:N, sinkmap:FILE, none; auto: first:4 for types coarser than F16
  std::string sink_map;               // of policies sinkmap and duo: file of profile --sinkmap, calibrated
  std::string duo_heads;              // of policy duo in its place: DuoAttention's own file of heads
  std::string positions = "auto";     // cache, gaps, or the policy's own
  int tokens = 2048;                  // of the text, BOS included; 0: all
  int skip = 0;                       // of them, tokens at the start that are read but count for nothing
  bool alone = false;                 // without "full", which grows with the text: nothing is compared with it
  int chunk = 32;                     // tokens that are evicted for and run at a time; 1 is StreamingLLM to the letter
  std::string bos = "auto";           // auto (as the tokenizer says), always, never
  std::vector<std::string> kv_types = {"f16"};  // of kept keys and values, each with each: f32, f16, q8c, q4c, q8_0, q4_0
  int threads = 0;                    // 0: one for each core
  std::string isa = "auto";
  bool no_blas = false;
  std::string resume;                 // file that an interrupted run goes on from; it goes when the run has ended
  std::string json, report, plot;     // files to write: the results, a report of them (HTML), a picture (SVG, by gnuplot)
};

struct EvalResult {
  std::string policy, kv_type;
  int sinks = 0, budget_rows = 0;     // 0: none, no bound
  int64_t budget_bytes = 0;           // that the rows follow from; 0: rows were asked for
  int64_t kv_bytes = 0;               // allocated for keys, values and what belongs to them, at most during the run
  double mean_rows = 0;               // of a KV head when a chunk was run, itself included: the mean context
  double ppl = 0;                     // perplexity of all tokens behind the first and the skipped ones
  // Of the tokens 0 to 1,023, and so on: perplexity, speed, and the process's resident memory behind the last of them.
  std::vector<double> ppl_by_1024, tokens_per_second_by_1024;
  std::vector<int64_t> rss_by_1024;
  double kl = 0;                      // nats for each token: from what "full" predicts to what this policy predicts; NaN when alone
  double same_top = 0;                // per cent of tokens whose likeliest successor is the same as with "full"; NaN when alone
  double tokens_per_second = 0;
  struct Answer {                     // of tasks needle and lines
    int length = 0;                   // needle: tokens of the text, about
    double depth = 0;                 // needle: where in it the key stands, 0 to 1
    int line = 0;                     // lines: the one that was asked for
    std::string expected, found;      // digits
  };
  std::vector<Answer> answers;
  double accuracy() const;            // per cent of answers that are right
};

struct Eval {
  ModelInfo model;
  std::string sha256;
  EvalOptions options;
  int n_token = 0;
  bool bos = false;
  struct SinkMapFile {
    std::string file, sha256;
  };
  std::vector<SinkMapFile> sink_maps; // that rows were divided or protected by
  std::vector<EvalResult> results;    // "full" in F16 first, unless alone: the others are compared with it
  std::vector<std::string> notes;     // what a reader must know, a sentence each
};

// Throws UsageError for options that cannot be, InputError for bad files, texts and models.
Eval evaluate(const EvalOptions& options, const Progress& progress = {});

std::string to_json(const Eval& eval);  // sinkscope.eval/1

}  // namespace sinkscope
