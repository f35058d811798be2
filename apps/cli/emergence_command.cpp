#include <algorithm>
#include <cstdio>
#include <memory>

#include <fmt/format.h>

#include "add_options.h"
#include "commands.h"
#include "sinkscope/emergence.h"
#include "sinkscope/options.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

// Mean attention to the first token as a bar, `|` where uniform attention ends.
std::string bar(const EmergencePoint& p, double most, int width) {
  const auto place = [&](double x) { return std::clamp(static_cast<int>(x / most * width + 0.5), 0, width); };
  std::string text(place(p.alpha), '#');
  const size_t null = place(p.alpha_null);
  if (text.size() <= null) text.resize(null + 1, ' ');
  text[null] = '|';
  return text;
}

std::string view(const Emergence& e, const Terminal& t) {
  double most = 0;
  for (const EmergencePoint& p : e.points) most = std::max({most, p.alpha, p.alpha_null});
  constexpr int kTable = 68, kWidest = 60;
  const int width = std::clamp(t.width - kTable - 2, 10, kWidest);
  std::string text = fmt::format("{} of {} with {}: {}\n\n      step  sink rate    null  attention  uniform  strongest head  peak  attention to the first token, | uniform\n", printable(e.model.name), counted(e.model.n_layer, "layer"),
                                 counted(e.model.n_head, "head"), e.answer());
  for (size_t i = 0; i < e.points.size(); ++i) {
    const EmergencePoint& p = e.points[i];
    text += fmt::format("{:10}  {:7.2f} % {:5.2f} %  {:9.3f}  {:7.3f}  {:>6}  {:6.3f}  {:>4}  {}{}\n", p.step, p.sink_rate, p.sink_null, p.alpha, p.alpha_null,
                        fmt::format("{}.{}", p.strongest.layer, p.strongest.head), p.strongest.alpha, p.norm_ratio.empty() ? "-" : fmt::format("{:.1f}", std::ranges::max(p.norm_ratio)),
                        bar(p, most, width), static_cast<int>(i) == e.onset ? "  <- sinks set in" : "");
  }
  return text + fmt::format("\n{} of {} tokens; peak: length of the first token's hidden state against the others' median, the largest of any layer\n", counted(e.run.n_prompt, "prompt"),
                            e.run.shortest == e.run.length ? fmt::format("{}", e.run.length) : fmt::format("{} to {}", e.run.shortest, e.run.length));
}

void run(EmergenceOptions options, const std::vector<std::string>& files) {
  for (const std::string& file : files) (file.ends_with(".gguf") ? options.checkpoints : options.texts).push_back(file);
  const Emergence result = behind_a_bar([&](const Progress& progress) { return emergence(options, progress); });
  print_notes(result.notes);
  const Terminal terminal = Terminal::of_stdout();
  const std::string text = view(result, terminal);
  std::fputs((terminal.wraps ? wrapped(text, terminal.width) : text).c_str(), stdout);
}

}  // namespace

void add_emergence_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<EmergenceOptions>();
  auto files = std::make_shared<std::vector<std::string>>();
  CLI::App* sub = app.add_subcommand("emergence", "How sinks come about: the same prompts through checkpoints of one model, and where sinks set in");
  sub->add_option("FILE", *files, "checkpoints (names that end with .gguf) and text files")->required();
  add_options<PromptOptions>(*sub, prompt_options(), *options);
  add_options(*sub, emergence_options(), *options);
  for (const char* file : {"--json", "--plot", "--tokens"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, files, &chosen] { chosen = [options, files] { run(*options, *files); }; });
}

}  // namespace sinkscope::cli
