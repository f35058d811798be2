// Which rows of a memory stay. Sources and what each policy is good for: docs/streaming.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/memory.h"
#include "cache/observer.h"
#include "policy/sink_map.h"

namespace sinkscope::policy {

// W_o of a layer, [n_out, n_in]: n_in is n_head d_value.
struct Projection {
  std::vector<float> weights;
  int n_in = 0;
};

struct Options {
  int budget = 0;                   // rows of each KV head, those to come included; 0: as many as there are
  int n_batch = 1;                  // tokens that come at once, at most
  int sinks = 4;                    // streaming: first rows that stay
  std::vector<int32_t> protect = {};  // positions whose rows no policy but window drops, in order, none twice
  std::function<Projection(int layer)> output_projection = {};  // of criticalkv
  std::shared_ptr<const SinkMap> map = {};  // of sinkmap and duo, calibrated
  int window = 32;                  // snapkv and its kin: last rows that stay, and queries whose attention counts
};

// A layer that has to make room.
struct Crowded {
  const cache::Layer& layer;
  const cache::Memory& memory;      // that it is of
  int index, n_layer;
  int n_new;                        // rows that are to follow
};

using Kept = std::vector<std::vector<bool>>;  // [n_head_kv][n_row]

class Policy {
 public:
  virtual ~Policy() = default;
  // What must be known about the rows.
  virtual cache::Observe observe() const { return {}; }
  // Before keep(): writes Head::notes(), where it needs any.
  virtual void note(cache::Layer&, int /*index*/) const {}
  virtual Kept keep(const Crowded& c) const = 0;
};

// What a policy is, for those who choose one.
struct Kind {
  const char* name;
  std::unique_ptr<Policy> (*make)(const Options&);
  bool needs_budget, has_sinks, protects, keeps_window, needs_map;
  bool scatters;                    // it may leave single rows
  bool gaps;                        // its rows stand where they were, unless somebody says otherwise; else side by side
};
std::span<const Kind> kinds();
std::string kind_names();  // as a list
// Throws UsageError where there is no such policy.
const Kind& kind(const std::string& name);

// Throws UsageError where the options make no sense for it.
std::unique_ptr<Policy> make(const std::string& name, const Options& options);

// --- what policies are made of

// Throws UsageError where a head of so many rows has no room for a batch, the protected rows, `n_last` others and one more.
void check_room(int64_t rows, const Options& options, int n_last = 0);

// These positions, in order and none twice, are protected too.
void protect_also(Options& options, const std::vector<int32_t>& positions);

// The head's rows that are protected, in order.
std::vector<int> protected_rows(const cache::Head& head, const Options& options);

// The first `n_first` and the last rows, `most` in all.
std::vector<bool> first_and_last(int n_row, int n_first, int most);

// All heads in the same way: body(head) is the head's kept rows.
template <class Body>
Kept each_head(const Crowded& c, const Body& body) {
  Kept kept;
  for (const cache::Head& head : c.layer.heads) kept.push_back(body(head));
  return kept;
}

// What was observed of each row, added up; rows that nobody looked at have 0.
std::vector<float> observed(const cache::Head& head);

// Means over `width` neighbours on either side and the row itself, as far as there are any.
std::vector<float> smoothed(const std::vector<float>& scores, int width);

// Scores that let the last `n_last` rows win over all others, and the protected ones over these.
void prefer(std::vector<float>& scores, const cache::Head& head, const Options& options, int n_last);

// The `most` rows with the highest scores, later ones before earlier ones of the same score.
std::vector<bool> best(const std::vector<float>& scores, int64_t most);

// One file each.
std::unique_ptr<Policy> full(const Options& options);
std::unique_ptr<Policy> window(const Options& options);
std::unique_ptr<Policy> streaming(const Options& options);
std::unique_ptr<Policy> h2o(const Options& options);
std::unique_ptr<Policy> tova(const Options& options);
std::unique_ptr<Policy> snapkv(const Options& options);
std::unique_ptr<Policy> pyramidkv(const Options& options);
std::unique_ptr<Policy> adakv(const Options& options);
std::unique_ptr<Policy> knorm(const Options& options);
std::unique_ptr<Policy> keydiff(const Options& options);
std::unique_ptr<Policy> expected(const Options& options);
std::unique_ptr<Policy> criticalkv(const Options& options);
std::unique_ptr<Policy> sinkmap(const Options& options);
std::unique_ptr<Policy> duo(const Options& options);

}  // namespace sinkscope::policy
