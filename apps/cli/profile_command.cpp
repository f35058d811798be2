#include <cstdio>
#include <memory>

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

// An option that names a file must name one.
std::string not_empty(const std::string& value) { return value.empty() ? "needs the name of a file, found ''" : ""; }

}  // namespace

void add_profile_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<ProfileOptions>();
  CLI::App* sub = app.add_subcommand("profile", "Which tokens are attention sinks, in which layers and heads, how strong");
  sub->add_option("MODEL", options->model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", options->texts, "text files; - is standard input");
  for (const Option& option : profile_options())
    std::visit(
        [&](auto field) {
          auto& target = (*options).*field;
          if constexpr (std::is_same_v<decltype(target), bool&>) sub->add_flag(option.flag, target, option.text);
          else if constexpr (std::is_same_v<decltype(target), std::vector<std::string>&>)  // once for each value
            sub->add_option(option.flag, target, option.text)->type_name(option.value)->expected(1)->allow_extra_args(false)
                ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
          else sub->add_option(option.flag, target, option.text)->type_name(option.value)->capture_default_str();
        },
        option.field);
  for (const char* file : {"--json", "--sinkmap", "--arrays", "--tokens"}) sub->get_option(file)->check(not_empty);
  sub->callback([options, &chosen] { chosen = [options] { run(*options); }; });
}

}  // namespace sinkscope::cli
