// What the plugin can measure inside a program that it knows nothing of: attention by cell of the cache.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "attention/columns.h"
#include "sinkscope/probe.h"

namespace sinkscope::plugin {

// Contexts of the program may compute at the same time: one operation is recorded after the other.
class CellRecorder : public Probe {
 public:
  explicit CellRecorder(const attention::Kernels& kernels) : kernels_(kernels), columns_(kernels) {}

  // sinkscope.cells/1, of all attention until now.
  std::string to_json();

  void begin(const AttentionShape& shape) override;
  void see(const Tile& tile) override;
  void merge(int stream, int first_head, int n_head) override;
  void end() override;
  void abandon() override;

 private:
  bool one_slot() const { return shape_->slots_per_head == 1; }
  void add_rows(const Tile& tile);

  struct Layer {
    std::vector<std::vector<double>> column_sum;  // [head][cell]
    std::vector<double> n_row;                    // [cell] rows that could see it, by the first head's mask
    std::vector<double> entropy_sum;              // [head]
    int64_t n_query = 0;
  };

  const attention::Kernels& kernels_;
  std::mutex mutex_;
  std::atomic<std::thread::id> recording_;        // who holds it, from begin() to end()
  std::map<int, Layer> layers_;
  attention::ColumnSlots columns_;
  std::vector<double> slot_entropy_;
  const AttentionShape* shape_ = nullptr;
};

}  // namespace sinkscope::plugin
