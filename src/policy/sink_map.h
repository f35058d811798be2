// A sink map (docs/json.md) as far as policies need it: where sinks are, and what each KV head loses by a shorter window.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace sinkscope::policy {

// What `sinkscope calibrate` measured of one KV head.
struct HeadLoss {
  int layer = 0, head = 0;
  std::vector<double> loss, kl;  // [window] nats for each token, this head's window alone being shortened
  double far_mass = 0;      // attention to keys that are neither among the first 64 nor the last 256
};

struct SinkMap {
  std::vector<int32_t> positions;  // of sinks, in order
  int n_token = 0;                 // of the calibration text; 0: not calibrated
  std::vector<int> windows;
  std::vector<HeadLoss> heads;     // of layers without a sliding window
  size_t n_head = 0;               // of them, when the calibration is finished
};

// What a map must be of to tell anything.
struct Subject {
  std::string model_sha256;
  bool bos = false;                // prompts start with BOS
};

// `document`: all that the file says. Throws InputError for a file that is no sink map or is of another subject.
SinkMap read_sink_map(const std::string& path, const Subject& subject, nlohmann::ordered_json* document = nullptr);
// The same for a file that `sinkscope calibrate` has finished.
SinkMap read_calibrated_map(const std::string& path, const Subject& subject);

// DuoAttention's heads (full_attention_heads.tsv of Xiao et al., 2410.10819): a line for each layer and in it a number for each KV head, 0 where it streams, 1 where it
// retrieves. As a calibrated map for `duo`, with the numbers as its far mass and no losses. Layers with a sliding window (`windows`, by layer; 0: none) are left out. Throws InputError.
SinkMap read_duo_heads(const std::string& path, const std::vector<int>& windows, int n_head_kv);

}  // namespace sinkscope::policy
