#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "add_options.h"
#include "commands.h"
#include "sinkscope/denoise.h"
#include "sinkscope/options.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

constexpr size_t kMostSinks = 4;   // of a step
constexpr size_t kMostSteps = 16;  // evenly over all

std::string view(const Denoised& d) {
  std::string text = printable(d.text) + "\n\n" + fmt::format("{}, {}: where its {} heads sink\n  step  masks  heads  centre  positions (per cent of heads)\n", printable(d.model.name), counted(static_cast<int64_t>(d.steps.size()), "step"), d.n_head);
  for (size_t i = 0; i < std::min(d.steps.size(), kMostSteps); ++i) {
    const DenoiseStep& s = d.steps[i * d.steps.size() / std::min(d.steps.size(), kMostSteps)];
    text += fmt::format("  {:>4}  {:>5}  {:>5}  {:>6.1f} ", s.step, s.n_masked, s.n_sink_head, s.centre);
    for (size_t k = 0; k < std::min(s.sinks.size(), kMostSinks); ++k) text += fmt::format("  {} `{}` ({:.0f})", s.sinks[k].position, printable(s.sinks[k].text), s.sinks[k].sink_rate);
    if (s.sinks.size() > kMostSinks) text += fmt::format("  and {} more", s.sinks.size() - kMostSinks);
    text += s.sinks.empty() ? "  none that a quarter of the heads share\n" : "\n";
  }
  return text;
}

void run(const DenoiseOptions& options) {
  const Denoised result = behind_a_bar([&](const Progress& progress) { return denoise(options, progress); });
  print_notes(result.notes);
  std::fputs(view(result).c_str(), stdout);
}

}  // namespace

void add_denoise_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<DenoiseOptions>();
  CLI::App* sub = app.add_subcommand("denoise", "Text from a diffusion model, and how its sinks move from step to step");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->text, "text to go on from; - is standard input");
  add_options(*sub, denoise_options(), *options);
  for (const char* file : {"--json", "--report", "--tokens"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
