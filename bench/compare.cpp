// sinkscope against llama.cpp from the same source tree: prefill, decoding and peak memory, side by side in one run.
//
// Each measurement is a process of its own: a prompt is run, then some tokens one by one. A round runs every way once,
// so that a machine that drifts drifts for all; ratios are taken within a round.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attention/kernels.h"
#include "measure/recorder.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "sinkscope/models.h"
#include "sinkscope/session.h"

namespace {

using namespace sinkscope;
using Json = nlohmann::ordered_json;

struct Way {
  const char* name;
  Attention attention;
  bool blas, measuring;
  bool torch = false;  // Hugging Face instead, by bench/hf_eager.py
};
constexpr Way kWays[] = {
    {"llama.cpp, flash attention", Attention::llama_flash, false, false},
    {"llama.cpp, plain attention", Attention::llama_plain, false, false},
    {"llama.cpp, flash attention, OpenBLAS", Attention::llama_flash, true, false},
    {"llama.cpp, plain attention, OpenBLAS", Attention::llama_plain, true, false},
    {"sinkscope, not measuring", Attention::sinkscope, true, false},
    {"sinkscope, measuring", Attention::sinkscope, true, true},
    {"sinkscope, measuring, no BLAS", Attention::sinkscope, false, true},
    {"Hugging Face, eager, with weights", {}, false, true, true},
};

struct Options {
  std::vector<std::string> models = {"smollm2-135m"};
  std::vector<int> lengths = {1, 512, 2048, 8192};
  int rounds = 3, decoded = 32;
  std::vector<int> ways;  // of kWays; the first is what others are compared with
  std::string torch;      // a Python with torch and transformers
  std::string json, markdown, svg;
};

struct Result {
  double prefill_s = 0, decode_tokens_per_s = 0, peak_mib = 0;
};

// No numbers where it fails: at 4,096 tokens its maps do not fit any more.
Result run_torch(const std::string& python, const std::string& path, int n_token, int n_decoded) {
  const std::string command = fmt::format("'{}' '{}' '{}' {} {} 2>/dev/null", python, HF_EAGER_SCRIPT, resolve_model(path), n_token, n_decoded);
  FILE* output = popen(command.c_str(), "r");
  constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
  Result result{kNothing, kNothing, 0};
  const bool whole = output && std::fscanf(output, " prefill_s %lf decode_tokens_per_s %lf", &result.prefill_s, &result.decode_tokens_per_s) == 2;
  if (output) pclose(output);
  return whole ? result : Result{kNothing, kNothing, 0};
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Result run(const Way& way, const std::string& path, int n_token, int n_decoded) {
  const Model model(path);
  Session session(model, {.n_context = n_token + n_decoded, .n_batch = 512, .n_thread = 0, .kv_type = "f16", .isa = "auto",
                          .attention = way.attention, .all_logits = false, .blas = way.blas, .batch_invariant = false});
  std::mt19937 random(1);
  std::vector<int> tokens(n_token + n_decoded);
  for (int& t : tokens) t = static_cast<int>(random() % static_cast<unsigned>(model.info().n_vocab));
  measure::Recorder recorder(attention::kernels("auto"), {.maps = {}, .all_first_mass = false});
  recorder.start(n_token + n_decoded);
  if (way.measuring) session.watch({&recorder});
  const double start = now();
  session.run(std::span(tokens).first(n_token));
  const double middle = now();
  for (int i = 0; i < n_decoded; ++i) session.append(std::span(tokens).subspan(n_token + i, 1));
  return {middle - start, n_decoded / (now() - middle), 0};
}

Result in_child(const Way& way, const Options& o, const std::string& path, int n_token) {
  int ends[2];
  if (pipe(ends) != 0) throw InputError("cannot make a pipe; close some programs");
  const pid_t child = fork();
  if (child == 0) {
    try {
      const Result result = way.torch ? run_torch(o.torch, path, n_token, o.decoded) : run(way, path, n_token, o.decoded);
      _exit(write(ends[1], &result, sizeof result) == sizeof result ? 0 : 1);
    } catch (const std::exception& e) {
      fmt::print(stderr, "bench_compare: {}\n", e.what());
      _exit(1);
    }
  }
  close(ends[1]);
  Result result;
  const bool whole = read(ends[0], &result, sizeof result) == sizeof result;
  close(ends[0]);
  int status = 0;
  rusage usage{};
  wait4(child, &status, 0, &usage);
  if (!whole) throw InputError(fmt::format("'{}' gave no result for {} tokens of {}; see above", way.name, n_token, path));
  result.peak_mib = static_cast<double>(usage.ru_maxrss) / 1024;
  return result;
}

struct Spread {
  double low = 0, median = 0, high = 0;
};
Spread spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

// One model and prompt length: [way][round].
struct Work {
  std::string model;
  int n_token;
  std::vector<std::vector<Result>> results;

  Spread of(size_t way, double Result::*field) const {
    std::vector<double> values;
    for (const Result& r : results[way]) values.push_back(r.*field);
    return spread(values);
  }
  // Against the first way, which is llama.cpp with flash attention, as it is built by default, unless --way says otherwise.
  Spread ratio(size_t way, double Result::*field) const {
    std::vector<double> values;
    for (size_t r = 0; r < results[way].size(); ++r) values.push_back(results[way][r].*field / (results[0][r].*field));
    return spread(values);
  }
};

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  return "unknown processor";
}

std::string machine(const Options& o) {
  const char* core = std::getenv("OPENBLAS_CORETYPE");
  return fmt::format("{}, {} threads, kernel {}, OpenBLAS {}; sinkscope {}, {} rounds", processor(), std::thread::hardware_concurrency(),
                     attention::kernels("auto").name, core ? fmt::format("told to be {}", core) : "as it likes", SINKSCOPE_VERSION, o.rounds);
}

std::string table(const Options& o, const Work& w) {
  const auto shown = [](const Spread& s) { return fmt::format("{:.2f} [{:.2f}, {:.2f}]", s.median, s.low, s.high); };
  std::string text = fmt::format("\n{}, {} tokens, then {} one by one\n\n| way | prefill s | ratio [low, high] | decode tokens/s | ratio [low, high] "
                                 "| peak MiB |\n|---|---|---|---|---|---|\n", w.model, w.n_token, o.decoded);
  for (size_t i = 0; i < o.ways.size(); ++i)
    text += fmt::format("| {} | {:.2f} | {} | {:.1f} | {} | {:.0f} |\n", kWays[o.ways[i]].name, w.of(i, &Result::prefill_s).median,
                        shown(w.ratio(i, &Result::prefill_s)), w.of(i, &Result::decode_tokens_per_s).median,
                        shown(w.ratio(i, &Result::decode_tokens_per_s)), w.of(i, &Result::peak_mib).median);
  return text;
}

Json to_json(const Options& o, const std::vector<Work>& works) {
  Json json = {{"schema", "sinkscope.compare/1"}, {"machine", machine(o)}, {"decoded", o.decoded}, {"works", Json::array()}};
  for (const Work& w : works) {
    Json work = {{"model", w.model}, {"n_token", w.n_token}, {"ways", Json::array()}};
    for (size_t i = 0; i < o.ways.size(); ++i) {
      Json rounds = Json::array();
      for (const Result& r : w.results[i])
        rounds.push_back({{"prefill_s", r.prefill_s}, {"decode_tokens_per_s", r.decode_tokens_per_s}, {"peak_mib", r.peak_mib}});
      work["ways"].push_back({{"way", kWays[o.ways[i]].name}, {"rounds", rounds}});
    }
    json["works"].push_back(std::move(work));
  }
  return json;
}

// Bars of medians with the spread as a line: time of prefill, rate of decoding, both against the first way.
std::string to_svg(const Options& o, const std::vector<Work>& works) {
  constexpr int kLeft = 250, kBar = 200, kRow = 16, kGap = 40;
  constexpr double kMost = 3;  // ratio at the right end
  std::string body;
  int y = 34;
  const auto bar = [&](int x, const Spread& s, const char* colour) {
    const auto at = [&](double v) { return x + kBar * std::min(v, kMost) / kMost; };
    body += fmt::format("<rect x='{}' y='{}' width='{:.1f}' height='10' fill='{}'/><path d='M{:.1f} {}H{:.1f}' stroke='#555'/>"
                        "<text x='{:.1f}' y='{}'>{:.2f}</text>\n", x, y - 9, at(s.median) - x, colour, at(s.low), y - 4, at(s.high),
                        at(std::max(s.median, s.high)) + 4, y, s.median);
  };
  for (const Work& w : works) {
    body += fmt::format("<text x='8' y='{}' font-weight='bold'>{}, {} tokens</text>\n", y, w.model, w.n_token);
    for (size_t i = 0; i < o.ways.size(); ++i) {
      y += kRow;
      const Way& way = kWays[o.ways[i]];
      const char* colour = way.attention == Attention::sinkscope ? "#d1495b" : "#30638e";
      body += fmt::format("<text x='16' y='{}'>{}</text>\n", y, way.name);
      bar(kLeft, w.ratio(i, &Result::prefill_s), colour);
      bar(kLeft + kBar + kGap, w.ratio(i, &Result::decode_tokens_per_s), colour);
    }
    y += 2 * kRow;
  }
  return fmt::format("<svg xmlns='http://www.w3.org/2000/svg' width='{}' height='{}' font-family='sans-serif' font-size='11'>\n"
                     "<rect width='100%' height='100%' fill='white'/>\n<text x='{}' y='14'>time of prefill (less is better)</text>"
                     "<text x='{}' y='14'>rate of decoding (more is better)</text>\n{}<text x='8' y='{}'>ratios to '{}'; {}</text>\n</svg>\n", kLeft + 2 * (kBar + kGap) + 20, y + 10, kLeft, kLeft + kBar + kGap, body, y, kWays[o.ways[0]].name, machine(o));
}

void write(const std::string& path, const std::string& text) {
  if (path.empty()) return;
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void compare(const Options& o) {
  std::vector<Work> works;
  for (const std::string& model : o.models)
    for (const int n_token : o.lengths) works.push_back({model, n_token, std::vector<std::vector<Result>>(o.ways.size())});
  std::string report = machine(o) + "\n";
  fmt::print("{}", report);
  for (Work& w : works) {
    for (int round = 0; round < o.rounds; ++round)
      for (size_t i = 0; i < o.ways.size(); ++i) {
        const Way& way = kWays[o.ways[i]];
        if (isatty(STDERR_FILENO)) fmt::print(stderr, "\r\x1b[K{}, {} tokens, round {}: {}", w.model, w.n_token, round + 1, way.name);
        w.results[i].push_back(in_child(way, o, w.model, w.n_token));
      }
    if (isatty(STDERR_FILENO)) fmt::print(stderr, "\r\x1b[K");
    const std::string text = table(o, w);
    fmt::print("{}", text);
    std::fflush(stdout);
    report += text;
  }
  write(o.json, to_json(o, works).dump(1) + "\n");
  write(o.markdown, report);
  write(o.svg, to_svg(o, works));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("sinkscope against llama.cpp: prefill, decoding and peak memory, interleaved in one run.", "bench_compare");
  Options o;
  app.add_option("--model", o.models, "GGUF files, or names of scripts/fetch-model")->capture_default_str();
  app.add_option("--length", o.lengths, "tokens of the prompt")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--rounds", o.rounds, "how often everything is measured")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--decode", o.decoded, "tokens that follow one by one")->check(CLI::Range(1, 4096))->capture_default_str();
  std::string ways = "by number, the first being what others are compared with:";
  for (size_t i = 0; i < std::size(kWays); ++i) {
    if (!kWays[i].torch) o.ways.push_back(static_cast<int>(i));
    ways += fmt::format(" {}: {};", i, kWays[i].name);
  }
  app.add_option("--way", o.ways, ways)->check(CLI::Range(0, static_cast<int>(std::size(kWays)) - 1));
  app.add_option("--json", o.json, "write all numbers");
  app.add_option("--markdown", o.markdown, "write the tables");
  app.add_option("--svg", o.svg, "draw the ratios");
  app.add_option("--torch", o.torch, "a Python with torch, transformers and gguf: compare with Hugging Face too");
  CLI11_PARSE(app, argc, argv);
  const auto torch = [](int way) { return kWays[way].torch; };
  if (!o.torch.empty() && std::ranges::none_of(o.ways, torch)) o.ways.push_back(static_cast<int>(std::size(kWays)) - 1);
  if (o.torch.empty() && std::ranges::any_of(o.ways, torch)) {
    fmt::print(stderr, "bench_compare: --way {} needs a Python with torch; give --torch PYTHON\n", std::size(kWays) - 1);
    return 2;
  }
  try {
    compare(o);
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench_compare: {}\n", e.what());
    return 1;
  }
}
