#include "report/html.h"

#include <fmt/format.h>

#include "io/encoding.h"
#include "sinkscope/error.h"

#ifdef SINKSCOPE_REPORT_APP
__asm__(
    ".section .rodata\n"
    ".global sinkscope_report_app, sinkscope_report_app_end\n"
    "sinkscope_report_app: .incbin \"" SINKSCOPE_REPORT_APP "\"\n"
    "sinkscope_report_app_end:\n"
    ".previous\n");
extern "C" const char sinkscope_report_app[], sinkscope_report_app_end[];
#endif

namespace sinkscope::report {

std::string_view app() {
#ifdef SINKSCOPE_REPORT_APP
  return {sinkscope_report_app, sinkscope_report_app_end};
#else
  return {};
#endif
}

void check_app(const char* wanted) {
  if (app().empty())
    throw UsageError(fmt::format("{} needs the report's app, which this build was made without; build with npm there and -DSINKSCOPE_REPORT=ON, or use --json", wanted));
}

std::string html(std::string_view app, std::string_view payload) {
  constexpr std::string_view kOpen = "<script id=\"sinkscope-data\" type=\"application/octet-stream\">", kClose = "</script>";
  const size_t open = app.find(kOpen), place = open + kOpen.size();
  if (open == app.npos || !app.substr(place).starts_with(kClose)) throw InternalError("the report's app has no empty place for data");
  return fmt::format("{}{}{}", app.substr(0, place), io::base64(io::deflated(payload)), app.substr(place));
}

}  // namespace sinkscope::report
