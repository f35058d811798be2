#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "add_options.h"
#include "commands.h"
#include "sinkscope/ablate.h"
#include "sinkscope/options.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

std::string line(const std::string& name, const Change& c) {
  const std::string ci = c.loss_change_ci95 ? fmt::format("[{:+.3f}, {:+.3f}]", c.loss_change_ci95->low, c.loss_change_ci95->high) : "";
  return fmt::format("{:<44} {:>8.3f} {:>+9.3f} {:<18} {:>8.4f} {:>8.1f} % {:>8.2f} %\n", name, c.loss, c.loss_change, ci, c.kl, c.same_top, c.sink_rate);
}

std::string table(const Ablations& a) {
  std::string text = fmt::format("{}, {} of up to {} tokens: loss {:.3f} nats per token, sink rate of the first position {:.2f} %\n\n", printable(a.model.name), counted(a.run.n_prompt, "prompt"),
                                 a.run.length, a.loss, a.sink_rate);
  text += fmt::format("{:<44} {:>8} {:>9} {:<18} {:>8} {:>10} {:>10}\n", "edit", "loss", "change", " 95 %", "KL", "same top", "sink rate");
  for (const Ablation& e : a.edits) {
    text += line(printable(e.edit), e.change);
    if (e.control) text += line(fmt::format("  other {} ({})", e.control_of, counted(a.controls, "draw")), *e.control);
    else if (a.controls > 0) text += "  no control: the edit names no place, or there is no other one\n";
  }
  return text;
}

void run(const AblateOptions& options) {
  const Ablations result = behind_a_bar([&](const Progress& progress) { return ablate(options, progress); });
  print_notes(result.notes);
  std::fputs(table(result).c_str(), stdout);
}

}  // namespace

void add_ablate_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<AblateOptions>();
  CLI::App* sub = app.add_subcommand("ablate", "What a model loses when its sinks are changed, against the same change elsewhere");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->texts, "text files; - is standard input");
  add_options<PromptOptions>(*sub, prompt_options(), *options);
  add_options(*sub, ablate_options(), *options);
  for (const char* file : {"--json", "--report", "--svg", "--tokens"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
