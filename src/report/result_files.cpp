#include "report/result_files.h"

#include "report/html.h"
#include "report/payload.h"
#include "report/pictures.h"

namespace sinkscope::report {

ResultFiles::ResultFiles(Names names) : names_(std::move(names)) {
  if (!names_.report.empty()) check_app("--report");
}

std::vector<io::Place> ResultFiles::places() const { return {{"--json", names_.json}, {"--report", names_.report}, {"--svg", names_.svg}}; }

void ResultFiles::open() {
  if (!names_.json.empty()) json_.emplace(names_.json);
  if (!names_.report.empty()) report_.emplace(names_.report);
  if (!names_.svg.empty()) svg_.emplace(names_.svg);
}

void ResultFiles::write(const std::string& model_name, const std::string& json, const std::string& arrays) {
  if (json_) json_->write(json);
  if (report_) report_->write(html(app(), payload({{.name = model_name, .json = json, .arrays = arrays}})));
  if (svg_) svg_->write(picture(json));
}

std::vector<AtomicFile*> ResultFiles::written() {
  std::vector<AtomicFile*> files;
  for (auto* file : {&json_, &report_, &svg_})
    if (*file) files.push_back(&**file);
  return files;
}

}  // namespace sinkscope::report
