#include <cstdio>
#include <memory>

#include "add_options.h"
#include "commands.h"
#include "explain_view.h"
#include "sinkscope/explain.h"
#include "sinkscope/options.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

void run(const ExplainOptions& options) {
  const Explanation result = behind_a_bar([&](const Progress& progress) { return explain(options, progress); });
  print_notes(result.profile.notes);
  print_notes(result.notes);
  std::fputs(view(result, Terminal::of_stdout()).c_str(), stdout);
}

}  // namespace

void add_explain_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<ExplainOptions>();
  CLI::App* sub = app.add_subcommand("explain", "Why there is a sink: lengths and angles of queries and keys, massive activations, what heads and experts do with it");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->texts, "text files; - is standard input");
  add_options<PromptOptions>(*sub, prompt_options(), *options);
  add_options(*sub, explain_options(), *options);
  for (const char* file : {"--json", "--arrays", "--report", "--svg", "--tokens"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
