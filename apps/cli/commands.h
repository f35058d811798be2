// The subcommands; each adds itself to the program's options and returns what to do when it is chosen.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace sinkscope::cli {

void add_profile_command(CLI::App& app, std::function<void()>& chosen);
void add_explain_command(CLI::App& app, std::function<void()>& chosen);
void add_ablate_command(CLI::App& app, std::function<void()>& chosen);
void add_denoise_command(CLI::App& app, std::function<void()>& chosen);
void add_calibrate_command(CLI::App& app, std::function<void()>& chosen);
void add_stream_command(CLI::App& app, std::function<void()>& chosen);
void add_emergence_command(CLI::App& app, std::function<void()>& chosen);
void add_eval_command(CLI::App& app, std::function<void()>& chosen);
void add_view_command(CLI::App& app, std::function<void()>& chosen);

}  // namespace sinkscope::cli
