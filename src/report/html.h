// The report: an app that is one HTML file, with its data inside.
#pragma once

#include <string>
#include <string_view>

namespace sinkscope::report {

// apps/report as it was built; empty where this build has none.
std::string_view app();

// Throws UsageError where this build has no app for what `wanted` asks.
void check_app(const char* wanted);

// The app with a payload in its place. Throws InternalError where the app has no such place.
std::string html(std::string_view app, std::string_view payload);

}  // namespace sinkscope::report
