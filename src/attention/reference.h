// Attention as written in the paper, in double, one row at a time: what every instruction set is held against.
#pragma once

#include <vector>

#include "attention/call.h"

namespace sinkscope::attention {

struct Reference {
  std::vector<double> out;                // [n_stream, n_query, n_head, d_value]
  std::vector<double> weights;            // [n_stream, n_head, n_query, n_key]
  std::vector<double> entropy;            // [n_stream, n_head, n_query] nats, with the learned column
  std::vector<double> learned_sink_mass;  // [n_stream, n_head, n_query]
  std::vector<double> log_sum;            // [n_stream, n_head, n_query]
};

Reference reference(const Call& call);

}  // namespace sinkscope::attention
