// The sharpest head of every layer, whose rows have the lowest mean entropy: example_probe MODEL.gguf TEXT-FILE
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <sinkscope/error.h>
#include <sinkscope/probe.h>
#include <sinkscope/session.h>

namespace {

class MeanEntropy : public sinkscope::Probe {
 public:
  struct Layer {
    std::vector<double> sum;  // [n_head] nats
    int n_row = 0;
  };
  std::vector<Layer> layers;

  void begin(const sinkscope::AttentionShape& shape) override {
    shape_ = &shape;
    if (shape.layer >= static_cast<int>(layers.size())) layers.resize(shape.layer + 1);
    layers[shape.layer].sum.resize(shape.n_head);
    slot_sum_.assign(shape.n_slot, 0);
  }
  // Several threads are here at once, each in a slot of its own.
  void see(const sinkscope::Tile& tile) override {
    for (int r = 0; r < tile.n_row; ++r) slot_sum_[tile.slot] += tile.entropy[r];
  }
  // One thread is here. Slots are added in their order: the same bits for any number of threads.
  void merge(int, int first_head, int n_head) override {
    for (int h = 0; h < n_head; ++h)
      for (int part = 0; part < shape_->slots_per_head; ++part)
        layers[shape_->layer].sum[first_head + h] += std::exchange(slot_sum_[h * shape_->slots_per_head + part], 0);
  }
  void end() override { layers[shape_->layer].n_row += shape_->n_stream * shape_->n_query; }

 private:
  const sinkscope::AttentionShape* shape_ = nullptr;  // of the operation that is under way
  std::vector<double> slot_sum_;
};

void run(const std::string& model_file, const std::string& text_file) {
  std::ifstream file(text_file);
  if (!file) throw sinkscope::InputError("cannot read '" + text_file + "'; give a text file");
  const std::string text{std::istreambuf_iterator<char>(file), {}};

  const sinkscope::Model model(model_file);
  std::vector<int> tokens = model.tokenize(text);
  if (model.info().adds_bos) tokens.insert(tokens.begin(), model.info().bos);
  sinkscope::SessionOptions options;
  tokens.resize(std::min<size_t>(tokens.size(), options.n_context));

  MeanEntropy probe;
  sinkscope::Session session(model, options);
  session.watch({&probe});
  session.run(tokens);

  std::printf("%zu tokens\n", tokens.size());
  for (size_t l = 0; l < probe.layers.size(); ++l) {
    const auto& [sum, n_row] = probe.layers[l];
    if (sum.empty()) continue;  // a layer without attention
    const auto least = std::min_element(sum.begin(), sum.end());
    std::printf("layer %2zu: head %2td, %.3f nats\n", l, least - sum.begin(), *least / n_row);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: example_probe MODEL.gguf TEXT-FILE\n");
    return 2;
  }
  try {
    run(argv[1], argv[2]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "example_probe: %s\n", e.what());
    return 1;
  }
}
