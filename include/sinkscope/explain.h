// Why a model has sinks: lengths and angles of queries and keys, values that drain, numbers of hidden states that stand out,
// and what heads and experts do with sinks. Formulas and sources: docs/metrics.md. The JSON: docs/json.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sinkscope/profile.h"

namespace sinkscope {

struct ExplainOptions : ProfileOptions {
  std::string explain_json;    // sinkscope.explain/1
  std::string explain_arrays;  // safetensors
  std::string explain_report;  // HTML
  std::string explain_svg;     // pictures
  int perturb = 64;            // tokens of the perturbation test; 0: none
};

// A position that a head sinks on.
struct HeadSink {
  int position = 0, token = -1;      // the token of the first such prompt
  std::string text;
  bool special = false;              // no word of text: BOS, [SEP]
  double share = 0;                  // of prompts
};

// Of a head: means over pairs of a query and a key that it sees, sinks and others apart. Where a head has no sink in a prompt, the
// first key stands for it.
struct HeadCause {
  int head = 0;
  double sinks = 0;                  // share of prompts in which it has one
  double entropy = 0;                // nats, mean over rows
  std::vector<HeadSink> where = {};     // at most 8 positions, those of most prompts first
  double query_norm = 0;
  double key_norm = 0, other_key_norm = 0;
  double cos = 0, other_cos = 0;     // between query and key
  double cos_unrotated = 0, other_cos_unrotated = 0;  // as they were before RoPE
  double logit = 0, other_logit = 0; // scaled, before soft cap and mask
  double gap_by_norm = 0, gap_by_angle = 0;  // of logit - other_logit; what is left comes from their varying together
  double null_mass = 0;              // that the same logits leave on no key under softmax-off-by-one
  double output_share = 0;           // of a head's output that comes from the values of sinks, by attention times length of value
};

// A number of the hidden states behind a layer.
struct LargestNumber {
  double value = 0;
  int dim = -1, prompt = 0, position = 0, token = -1;
  std::string text = {};
  double over_median = 0;            // its magnitude against the median of the layer's magnitudes
};

struct LayerCause {
  int layer = 0;                     // -1: before the first layer (hidden states alone)
  // Hidden states behind the layer; absent where the graph does not name them.
  bool hidden = false;
  double norm_first = 0, norm_median = 0;  // of the first token, and the median of all others; means over prompts
  std::optional<double> norm_sinks;  // of the tokens that more than 25 % of heads sink on; absent where there is none
  double top_over_median = 0;        // largest magnitude of a token against its median; mean over tokens
  LargestNumber largest;
  double spread = 0;                 // || H - mean || / || H ||, how far tokens are from being all alike (over-mixing); mean over prompts
  std::optional<double> moved, moved_without_first;  // perturbation: mean length of what one changed token moves others by,
                                                     // against their length; and when nobody can look at the first token
  // Attention.
  std::vector<HeadCause> heads;
  double key_norm_first = 0, key_norm_median = 0, value_norm_first = 0, value_norm_median = 0;  // means over prompts and KV heads
  std::optional<double> key_norm_sinks, value_norm_sinks;
};

// A dimension in which the first position, or a token behind it wherever that is, stands out, over the layers in which it does.
struct Outlier {
  int dim = 0, position = 0, token = -1;  // as it was first seen
  std::string text = {};
  int n_prompt = 0, n_place = 0;     // prompts, and positions in them, that have it
  bool massive = false;              // |h| > 100 and at least 1,000 times the layer's median (Sun et al., 2402.17762)
  bool sink_dimension = false;       // |h| at least 20 times the token's root mean square
  double value = 0, over_median = 0; // where it is largest
  int layer = 0;                     // where it is largest
  int first_layer = 0, last_layer = 0;  // behind which it stands out
  int rises_in = -1, falls_in = -1;  // layer that lets it grow most, and the one behind that lets it shrink most
  std::string rises_by = {}, falls_by = {};    // attention, mlp, or layer where the graph does not tell
};

// A token whose hidden state comes to point where the first one's does.
struct SecondarySink {
  int prompt = 0, position = 0, token = -1;
  std::string text = {};
  int first_layer = 0, last_layer = 0;
  std::string kind = {};                  // bos-like, secondary, noise: by lifetime
};

struct ExpertUse {
  int layer = 0, expert = 0;
  double sink_share = 0, other_share = 0;  // of the tokens that are sinks, and of the others, that are sent to it
  double sink_weight = 0, other_weight = 0;  // mean router weight there
  double largest_output = 0;         // magnitude of its down projection
  bool is_super = false;             // Super Experts (2507.23279)
};

// A head that sinks on one prompt and works on another.
struct DormantHead {
  int layer = 0, head = 0;
  int sinking_prompt = 0, working_prompt = 0;
  double alpha_sinking = 0, alpha_working = 0;    // of the first key
  double loss_sinking = 0, loss_working = 0;      // rise of the loss over at most 128 tokens, nats per token, when the head is silent
};

struct Explanation {
  Profile profile;
  std::vector<LayerCause> layers = {};    // from -1 on
  int onset = -1;                    // layer in which the first token's hidden state grows most; -1: hidden states are not named
  double onset_rise = 0;
  std::vector<Outlier> outliers = {};     // the largest first
  std::vector<SecondarySink> secondary = {};
  std::vector<ExpertUse> experts = {};    // that sink tokens are sent to, or that are super
  std::optional<double> d_sink = {};      // 1 - mass on sink tokens without the super experts / with them, mean over heads
  std::vector<DormantHead> dormant = {};
  std::vector<std::string> missing = {};  // tensors that this architecture does not name
  std::vector<std::string> notes = {};

  std::string answer() const;
};

// Throws as profile() does.
Explanation explain(const ExplainOptions& options, const Progress& progress = {});

std::string to_json(const Explanation& explanation);  // sinkscope.explain/1

}  // namespace sinkscope
