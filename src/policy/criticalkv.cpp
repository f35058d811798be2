#include <cmath>

#include "policy/products.h"
#include "policy/snapkv.h"

namespace sinkscope::policy {
namespace {

// CriticalKV (Feng et al., 2502.03805): SnapKV's score of a row, times how much its value can change the layer's output: the
// L1 norm of W_o v, mean over the query heads that share it.
class CriticalKv : public SnapKv {
 public:
  using SnapKv::SnapKv;
  cache::Observe observe() const override { return {.n_last = options_.window, .notes = true}; }
  void note(cache::Layer& layer, int index) const override {
    bool any = false;
    for (const cache::Head& head : layer.heads) any |= static_cast<int>(head.notes().size()) < head.n_row();
    if (!any) return;
    const Projection projection = options_.output_projection(index);
    const int d = layer.storage->d_value, n_out = static_cast<int>(projection.weights.size()) / projection.n_in;
    const int group = projection.n_in / d / static_cast<int>(layer.heads.size());
    int query_head = 0;
    for (cache::Head& head : layer.heads) {
      const int first = static_cast<int>(head.notes().size()), n_new = head.n_row() - first;
      const std::vector<float> values = head.values();
      head.notes().resize(head.n_row());
      for (const int end = query_head + group; query_head < end; ++query_head) {
        const std::vector<float> outputs = products(*layer.storage->kernels, values.data() + static_cast<size_t>(first) * d, n_new,
                                                    projection.weights.data() + static_cast<size_t>(query_head) * d, projection.n_in, n_out, d);
        for (int row = 0; row < n_new; ++row)
          for (int i = 0; i < n_out; ++i) head.notes()[first + row] += std::abs(outputs[static_cast<size_t>(row) * n_out + i]) / static_cast<float>(group);
      }
    }
  }
  Kept keep(const Crowded& c) const override {
    return each_head(c, [&](const cache::Head& head) {
      std::vector<float> scores = smoothed_scores(head);
      for (size_t row = 0; row < scores.size(); ++row) scores[row] *= head.notes()[row];
      prefer(scores, head, options_, options_.window);
      return best(scores, options_.budget - c.n_new);
    });
  }
};

}  // namespace

std::unique_ptr<Policy> criticalkv(const Options& options) { return std::make_unique<CriticalKv>(options); }

}  // namespace sinkscope::policy
