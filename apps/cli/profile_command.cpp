#include <cstdio>
#include <memory>

#include "add_options.h"
#include "commands.h"
#include "explain_view.h"
#include "profile_view.h"
#include "sinkscope/options.h"
#include "sinkscope/profile.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

struct Options : ExplainOptions {
  bool explain = false;
};

void run(const Options& options) {
  const Explanation result = behind_a_bar([&](const Progress& progress) {
    return options.explain ? explain(options, progress) : Explanation{.profile = profile(options, progress)};
  });
  print_notes(result.profile.notes);
  print_notes(result.notes);
  const Terminal terminal = Terminal::of_stdout();
  std::fputs(view(result.profile, terminal).c_str(), stdout);
  if (options.explain) std::fputs(("\n" + view(result, terminal)).c_str(), stdout);
}

}  // namespace

void add_profile_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* sub = app.add_subcommand("profile", "Which tokens are attention sinks, in which layers and heads, how strong");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->texts, "text files; - is standard input");
  add_options<PromptOptions>(*sub, prompt_options(), *options);
  add_options<ProfileOptions>(*sub, profile_options(), *options);
  sub->add_flag("--explain", options->explain, "and why: what sinkscope explain tells, joined to the JSON too");
  for (const char* file : {"--json", "--sinkmap", "--arrays", "--report", "--svg", "--tokens"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
