#include <cstdio>
#include <memory>

#include "add_options.h"
#include "commands.h"
#include "profile_view.h"
#include "sinkscope/options.h"
#include "sinkscope/profile.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

void run(const ProfileOptions& options) {
  const Profile result = [&] {
    ProgressBar bar;
    return profile(options, [&](const std::string& what, int64_t done, int64_t total) { bar.show(what, done, total); });
  }();
  for (const std::string& note : result.notes) print_error_line("note: " + note);
  std::fputs(view(result, Terminal::of_stdout()).c_str(), stdout);
}

}  // namespace

void add_profile_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* sub = app.add_subcommand("profile", "Which tokens are attention sinks, in which layers and heads, how strong");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->texts, "text files; - is standard input");
  add_options<PromptOptions>(*sub, prompt_options(), *options);
  add_options(*sub, profile_options(), *options);
  for (const char* file : {"--json", "--sinkmap", "--arrays", "--tokens"}) sub->get_option(file)->check(names_a_file);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
