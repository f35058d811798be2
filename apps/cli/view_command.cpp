#include <memory>

#include "add_options.h"
#include "commands.h"
#include "sinkscope/options.h"
#include "sinkscope/report.h"
#include "terminal.h"

namespace sinkscope::cli {

void add_view_command(CLI::App& app, std::function<void()>& chosen) {
  auto options = std::make_shared<ViewOptions>();
  CLI::App* sub = app.add_subcommand("view", "A report of saved results, several of them side by side");
  sub->add_option("FILE", options->results, "files of --json, all of one command; or folders of sinkscope-train's runs")->required();
  add_options(*sub, view_options(), *options);
  sub->get_option("--out")->check(names_a_file)->required();
  sub->callback([options, &chosen] { chosen = [options] { print_notes(view(*options)); }; });
}

}  // namespace sinkscope::cli
