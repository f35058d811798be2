#include "policy/sink_map.h"

#include <algorithm>
#include <fstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sinkscope/error.h"

namespace sinkscope::policy {

SinkMap read_sink_map(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw InputError(fmt::format("cannot read '{}'; give a sink map of sinkscope profile --sinkmap", path));
  SinkMap map;
  size_t n_head = 0;
  try {
    const auto json = nlohmann::json::parse(file);
    if (json.at("schema") != "sinkscope.sinkmap/1") throw InputError("");
    for (const auto& sink : json.at("positions")) map.positions.push_back(sink.at("position"));
    map.n_layer = json.at("model").at("n_layer");
    map.n_head_kv = json.at("model").at("n_head_kv");
    if (json.contains("calibration")) {
      const auto& calibration = json.at("calibration");
      map.n_token = calibration.at("n_token");
      map.windows = calibration.at("windows").get<std::vector<int>>();
      n_head = calibration.at("n_head");
      for (const auto& h : calibration.at("heads")) {
        map.heads.push_back({h.at("layer"), h.at("head_kv"), h.at("kl").get<std::vector<double>>(), h.at("far_mass")});
        if (map.heads.back().kl.size() != map.windows.size() || map.windows.empty() || map.n_token < 1) throw InputError("");
      }
    }
  } catch (const std::exception&) {
    throw InputError(fmt::format("'{}' is no sink map (schema sinkscope.sinkmap/1); make one by sinkscope profile --sinkmap", path));
  }
  if (map.heads.size() != n_head)
    throw InputError(fmt::format("'{}' is calibrated for {} of {} heads; run the same sinkscope calibrate again, it goes on where it stopped", path,
                                 map.heads.size(), n_head));
  std::ranges::sort(map.positions);
  map.positions.erase(std::unique(map.positions.begin(), map.positions.end()), map.positions.end());
  return map;
}

}  // namespace sinkscope::policy
