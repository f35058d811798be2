// A sink map (docs/json.md) as far as policies need it: where sinks are, and what each KV head loses by a shorter window.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sinkscope::policy {

// What `sinkscope calibrate` measured of one KV head.
struct HeadLoss {
  int layer = 0, head = 0;
  std::vector<double> kl;   // [window] nats for each token, this head's window alone being shortened
  double far_mass = 0;      // attention to keys that are neither among the first 64 nor the last 256
};

struct SinkMap {
  std::vector<int32_t> positions;  // of sinks, in order
  int n_layer = 0, n_head_kv = 0;
  int n_token = 0;                 // of the calibration text; 0: not calibrated
  std::vector<int> windows;
  std::vector<HeadLoss> heads;     // of layers without a sliding window
};

// Throws InputError for a file that is no sink map, or whose calibration was not finished.
SinkMap read_sink_map(const std::string& path);

}  // namespace sinkscope::policy
