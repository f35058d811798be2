// The files that tell policies about a model's heads, as users name them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "policy/sink_map.h"

namespace sinkscope::policy {

struct MapFiles {
  std::string sink_map;   // --sinkmap
  std::string duo_heads;  // --duo-heads: for policy duo it goes before the other

  // Throws UsageError for a file that none of the policies reads.
  void check(std::span<const std::string> policies) const;
  // Which file a policy reads; empty where it needs none, or none is given.
  std::string of(const std::string& policy) const;
  // What it says, or null. `windows` of the layers and `n_head_kv` as read_duo_heads() takes them. Throws as the readers in sink_map.h.
  std::shared_ptr<const SinkMap> read(const std::string& policy, const Subject& subject, const std::vector<int>& windows, int n_head_kv) const;

 private:
  bool reads_heads(const std::string& policy) const;  // --duo-heads
};

}  // namespace sinkscope::policy
