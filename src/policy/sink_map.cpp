#include "policy/sink_map.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::policy {

SinkMap read_sink_map(const std::string& path, const Subject& subject, nlohmann::ordered_json* document) {
  std::ifstream file(path);
  if (!file) throw InputError(fmt::format("cannot read '{}'; give a sink map of sinkscope profile --sinkmap", path));
  SinkMap map;
  std::string sha256, bos;
  try {
    auto json = nlohmann::ordered_json::parse(file);
    if (json.at("schema") != "sinkscope.sinkmap/1") throw InputError("");
    sha256 = json.at("model").at("sha256");
    bos = json.at("bos");
    for (const auto& sink : json.at("positions")) map.positions.push_back(sink.at("position"));
    if (json.contains("calibration")) {
      const auto& calibration = json.at("calibration");
      map.n_token = calibration.at("n_token");
      map.windows = calibration.at("windows").get<std::vector<int>>();
      map.n_head = calibration.at("n_head");
      for (const auto& h : calibration.at("heads")) {
        map.heads.push_back({h.at("layer"), h.at("head_kv"), h.at("loss").get<std::vector<double>>(), h.at("kl").get<std::vector<double>>(), h.at("far_mass")});
        const HeadLoss& head = map.heads.back();
        if (head.loss.size() != map.windows.size() || head.kl.size() != map.windows.size() || map.windows.empty() || map.n_token < 1) throw InputError("");
      }
    }
    if (document) *document = std::move(json);
  } catch (const std::exception&) {
    throw InputError(fmt::format("'{}' is no sink map (schema sinkscope.sinkmap/1); make one by sinkscope profile --sinkmap", path));
  }
  if (sha256 != subject.model_sha256)
    throw InputError(fmt::format("'{}' is the sink map of another model; make one of this model by sinkscope profile --sinkmap", path));
  if ((bos == "first") != subject.bos)
    throw InputError(fmt::format("'{}' is of prompts {} BOS, which tell nothing of a text {}; give --bos {}, or the sink map of a sinkscope profile --bos {}", path,
                                 subject.bos ? "without" : "with", subject.bos ? "with" : "without", subject.bos ? "never" : "always", subject.bos ? "always" : "never"));
  std::ranges::sort(map.positions);
  map.positions.erase(std::unique(map.positions.begin(), map.positions.end()), map.positions.end());
  return map;
}

SinkMap read_calibrated_map(const std::string& path, const Subject& subject) {
  SinkMap map = read_sink_map(path, subject);
  if (map.heads.empty() || map.heads.size() != map.n_head)
    throw InputError(fmt::format("'{}' is calibrated for {} of {} heads; run sinkscope calibrate on it, which goes on where it stopped", path, map.heads.size(),
                                 map.n_head));
  return map;
}

SinkMap read_duo_heads(const std::string& path, const std::vector<int>& windows, int n_head_kv) {
  std::ifstream file(path);
  if (!file) throw InputError(fmt::format("cannot read '{}'; give a file of DuoAttention's heads", path));
  const auto n_layer = static_cast<int>(windows.size());
  SinkMap map;
  int layer = 0;
  for (std::string line; std::getline(file, line); ++layer) {
    std::istringstream row(line);
    std::vector<double> numbers;
    for (double x; row >> x;) numbers.push_back(x);
    if (!row.eof() || static_cast<int>(numbers.size()) != n_head_kv || layer >= n_layer || std::ranges::any_of(numbers, [](double x) { return !(x >= 0 && x <= 1); }))
      throw InputError(fmt::format("{}, line {}: this model needs {} lines of {} numbers from 0 to 1, a line for each layer and a number for each KV head", path, layer + 1, n_layer, n_head_kv));
    if (windows[layer] > 0) continue;
    for (int h = 0; h < n_head_kv; ++h) map.heads.push_back({.layer = layer, .head = h, .loss = {}, .kl = {}, .far_mass = numbers[h]});
  }
  if (layer != n_layer) throw InputError(fmt::format("'{}' has {} lines, and the model {} layers; give a line for each", path, layer, n_layer));
  if (map.heads.empty()) throw InputError(fmt::format("each layer of the model has a sliding window, so there is no head for '{}' to rule", path));
  map.n_head = map.heads.size();
  return map;
}

}  // namespace sinkscope::policy
