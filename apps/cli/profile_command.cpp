#include <filesystem>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "commands.h"
#include "profile_view.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "sinkscope/options.h"
#include "sinkscope/profile.h"
#include "terminal.h"

namespace sinkscope::cli {
namespace {

struct ProfileCommand {
  ProfileOptions options;
  std::string json, sinkmap;

  void run() const {
    check_places();
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
    for (const std::string& note : result.notes) print_error_line("note: " + note);
    std::fputs(view(result, Terminal::of_stdout()).c_str(), stdout);
  }

 private:
  // No output may take the place of an input or of another output.
  void check_places() const {
    std::vector<std::string> taken = options.texts;
    taken.push_back(options.tokens);
    taken.push_back(options.model);
    for (const auto& [option, path] : {std::pair("--json", json), {"--sinkmap", sinkmap}, {"--arrays", options.arrays}}) {
      if (path == "-") throw UsageError(fmt::format("{} - is no file; give the name of one", option));
      for (const std::string& other : taken)
        if (!path.empty() && same_file(path, other))
          throw UsageError(fmt::format("{} '{}' is also another file of this command; give another name", option, path));
      taken.push_back(path);
    }
  }

  static std::filesystem::path whole(const std::string& path) {
    std::error_code error;
    return std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  }

  static bool same_file(const std::string& a, const std::string& b) {
    namespace fs = std::filesystem;
    std::error_code error;
    return !b.empty() && (whole(a) == whole(b) || fs::equivalent(a, b, error));
  }
};

// An option that names a file must name one.
std::string not_empty(const std::string& value) { return value.empty() ? "needs the name of a file, found ''" : ""; }

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
  for (const char* file : {"--json", "--sinkmap", "--arrays", "--tokens"}) sub->get_option(file)->check(not_empty);
  for (const char* list : {"--baseline", "--maps"}) sub->get_option(list)->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sub->callback([command, &chosen] { chosen = [command] { command->run(); }; });
}

}  // namespace sinkscope::cli
