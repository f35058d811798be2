#include <algorithm>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "add_options.h"
#include "commands.h"
#include "sinkscope/calibrate.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

constexpr int kMostRows = 10;

// Layers x KV heads of what the shortest window costs, the dearest head being 1.
std::string heat_map(const Calibration& c, const Terminal& t, double dearest) {
  std::string text = fmt::format("Divergence by a window of {} rows, layers x KV heads, the largest: {:.5f} nats\nlayer\n", c.windows[0], dearest);
  for (size_t i = 0; i < c.heads.size(); ++i) {
    const CalibratedHead& h = c.heads[i];
    if (i == 0 || c.heads[i - 1].layer != h.layer) text += fmt::format("{}{:>5} ", i ? "\n" : "", h.layer);
    const double share = dearest > 0 ? h.kl[0] / dearest : 0;
    text += t.colour ? shaded(share, "  ", true) : fmt::format(" {:.0f}", 9 * std::clamp(share, 0.0, 1.0));
  }
  return text + "\n";
}

std::string view(const Calibration& c, const Terminal& t) {
  std::vector<CalibratedHead> heads = c.heads;
  std::ranges::stable_sort(heads, std::ranges::greater(), [](const CalibratedHead& h) { return h.kl[0]; });
  std::string text = fmt::format("{}: {} on {}, perplexity with all rows {:.3f}\n\n", printable(c.model.name), counted(static_cast<int64_t>(heads.size()), "head"), counted(c.n_token, "token"), c.ppl) +
                     heat_map(c, t, heads[0].kl[0]) + "\nThe dearest heads\n  layer  KV head  mass far back";
  for (const int w : c.windows) text += fmt::format("  KL at {:>4}", w);
  for (size_t i = 0; i < std::min<size_t>(heads.size(), kMostRows); ++i) {
    text += fmt::format("\n  {:>5}  {:>7}  {:>13.3f}", heads[i].layer, heads[i].head_kv, heads[i].far_mass);
    for (const double kl : heads[i].kl) text += fmt::format("  {:>10.5f}", kl);
  }
  return text + "\n";
}

void run(const CalibrateOptions& options) {
  const Calibration result = behind_a_bar([&](const Progress& progress) { return calibrate(options, progress); });
  std::fputs(view(result, Terminal::of_stdout()).c_str(), stdout);
}

}  // namespace

void add_calibrate_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<CalibrateOptions>();
  CLI::App* sub = app.add_subcommand("calibrate", "What each KV head loses by looking back less far, added to a sink map: for policies sinkmap and duo");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->text, "text file; - is standard input")->required();
  add_options(*sub, calibrate_options(), *options);
  sub->get_option("--sinkmap")->check(names_a_file);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
