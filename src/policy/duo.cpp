#include <algorithm>
#include <cmath>

#include "policy/first_and_last.h"
#include "policy/protect.h"

namespace sinkscope::policy {
namespace {

constexpr double kRetrievalShare = 0.5;          // of the heads, as the paper has it for models with GQA
constexpr int kFirstRows = 64, kLastRows = 256;  // of the other heads, as the paper deploys it

}  // namespace

// DuoAttention (Xiao et al., 2410.10819): streaming heads keep the first rows and the last ones, retrieval heads everything
// there is room for: what the streaming heads leave of the budget. Which heads retrieve: those of the largest mass far back.
std::unique_ptr<Policy> duo(const Options& options) {
  const SinkMap& map = *options.map;
  std::vector<HeadLoss> heads = map.heads;
  std::ranges::stable_sort(heads, std::ranges::greater(), &HeadLoss::far_mass);
  const auto n_retrieval = static_cast<size_t>(std::ceil(kRetrievalShare * static_cast<double>(heads.size())));
  Options own = options;
  const int streaming = std::min(kFirstRows + kLastRows + options.n_batch, std::max(options.budget / 2, options.n_batch + 2));
  protect_also(own, first_positions(std::clamp((streaming - options.n_batch) * kFirstRows / (kFirstRows + kLastRows), 1, kFirstRows)));  // never without the sink
  const auto n_streaming = static_cast<int64_t>(heads.size() - n_retrieval), n = static_cast<int64_t>(n_retrieval);
  const int64_t retrieval = n > 0 ? options.budget + (options.budget - streaming) * n_streaming / n : 0;
  HeadRows rows;
  for (size_t i = 0; i < heads.size(); ++i) rows[{heads[i].layer, heads[i].head}] = i < n_retrieval ? retrieval : streaming;
  return std::make_unique<FirstAndLast>(own, rows);
}

}  // namespace sinkscope::policy
