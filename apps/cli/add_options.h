// From a command's table of options to the parser.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "sinkscope/error.h"
#include "sinkscope/options.h"

namespace sinkscope::cli {

// An option that names a file must name one.
inline std::string names_a_file(const std::string& value) { return value.empty() ? "needs the name of a file, found ''" : ""; }

// Throws UsageError where both options are in the command.
inline void one_of(const CLI::App& command, const char* a, const char* b) {
  if (command.count(a) > 0 && command.count(b) > 0) throw UsageError(fmt::format("both {} and {} are given; give one of them", a, b));
}

// `options` must live as long as `command`. Lists are given once for each value, or with commas where help shows commas.
template <class Options>
void add_options(CLI::App& command, std::span<const Option<Options>> table, Options& options) {
  for (const Option<Options>& option : table)
    std::visit(
        [&](auto field) {
          auto& target = options.*field;
          using Target = std::remove_reference_t<decltype(target)>;
          if constexpr (std::is_same_v<Target, bool>) {
            command.add_flag(option.flag, target, option.text);
          } else {
            CLI::Option* added = command.add_option(option.flag, target, option.text)->type_name(option.value);
            if constexpr (std::is_same_v<Target, std::vector<std::string>> || std::is_same_v<Target, std::vector<int>>) {
              added->expected(1)->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
              if (std::string_view(option.value).find(',') != std::string_view::npos) added->delimiter(',')->capture_default_str();
            } else {
              added->capture_default_str();
            }
          }
        },
        option.field);
}

}  // namespace sinkscope::cli
