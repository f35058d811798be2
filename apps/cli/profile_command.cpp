#include <cstdio>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "commands.h"
#include "profile_view.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/options.h"
#include "sinkscope/profile.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

struct ProfileCommand {
  ProfileOptions options;
  std::string json, sinkmap;

  void run() const {
    // Opened first: a place that cannot be written shows before long work.
    std::optional<AtomicFile> json_file, sinkmap_file;
    if (!json.empty()) json_file.emplace(json);
    if (!sinkmap.empty()) sinkmap_file.emplace(sinkmap);

    const Profile result = [&] {
      ProgressBar bar;
      return profile(options, [&](const std::string& what, int64_t done, int64_t total) { bar.show(what, done, total); });
    }();

    if (json_file) json_file->write(to_json(result));
    if (sinkmap_file) sinkmap_file->write(to_sink_map_json(result));
    if (json_file) json_file->commit();
    if (sinkmap_file) sinkmap_file->commit();
    for (const std::string& note : result.notes) fmt::print(stderr, "sinkscope: note: {}\n", note);
    fmt::print("{}", view(result, Terminal::of_stdout()));
  }
};

}  // namespace

void add_profile_command(CLI::App& app, std::function<void()>& chosen) {
  auto command = std::make_shared<ProfileCommand>();
  CLI::App* sub = app.add_subcommand("profile", "Which tokens are attention sinks, in which layers and heads, how strong");
  sub->add_option("MODEL", command->options.model, "GGUF file, or a name of scripts/fetch-model")->required();
  sub->add_option("TEXT", command->options.texts, "text files; - is standard input");
  for (const Option& option : profile_options())
    std::visit(
        [&](auto field) {
          auto& target = command->options.*field;
          if constexpr (std::is_same_v<decltype(target), bool&>) sub->add_flag(option.flag, target, option.text);
          else sub->add_option(option.flag, target, option.text)->type_name(option.value)->capture_default_str();
        },
        option.field);
  sub->add_option("--json", command->json, "write the profile as JSON (docs/json.md)")->type_name("FILE");
  sub->add_option("--sinkmap", command->sinkmap, "write the sink map as JSON, for cache policies and other tools")->type_name("FILE");
  for (const char* list : {"--baseline", "--maps"}) sub->get_option(list)->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sub->callback([command, &chosen] { chosen = [command] { command->run(); }; });
}

}  // namespace sinkscope::cli
