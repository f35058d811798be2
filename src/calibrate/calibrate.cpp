#include "sinkscope/calibrate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include <fmt/format.h>

#include "attention/team.h"
#include "io/sha256.h"
#include "policy/first_and_last.h"
#include "session/model_json.h"
#include "session/predictions.h"
#include "session/check.h"
#include "session/text.h"
#include "session/windows.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

using session::Json;

constexpr int kFirstKeys = 64, kLastKeys = 256;  // what DuoAttention's streaming heads see
constexpr int kLikeliest = 256;                  // tokens that are compared one by one; the others as one

void check(const CalibrateOptions& o) {
  if (o.sink_map.empty()) throw UsageError("--sinkmap is missing; give the sink map of this model, made by sinkscope profile --sinkmap");
  session::at_least("--chunk", o.chunk, 1);
  session::at_least("--threads", o.threads, 0);
  if (o.tokens < 0 || o.tokens == 1) throw UsageError(fmt::format("--tokens {} leaves nothing to predict; use 2 or more, or 0 for the whole text", o.tokens));
  if (o.windows.empty()) throw UsageError("--windows names none; give one or more");
}

void check_windows(const CalibrateOptions& o, int n_token) {
  for (const int w : o.windows) session::between("--windows", w, o.chunk + 1, n_token - 1);
}

// How much attention goes to keys that streaming heads do not see, by layer and KV head.
class FarMass : public Probe {
 public:
  void begin(const AttentionShape& shape) override {
    shape_ = shape;
    slots_.assign(shape.n_slot, {});
    std::vector<Sum>& heads = layers_[shape.layer];
    heads.resize(shape.n_head_kv);
  }
  void see(const Tile& t) override {
    for (int r = 0; r < t.n_row; ++r) {
      const int position = shape_.n_key - shape_.n_query + t.first_query + r;
      if (position < kFirstKeys + kLastKeys) continue;
      const int begin = std::max(kFirstKeys, t.key_begin), end = std::min(position - kLastKeys + 1, t.key_end);
      if (begin < end) slots_[t.slot].mass += std::accumulate(t.row(r) + begin - t.key_begin, t.row(r) + end - t.key_begin, 0.0);
      ++slots_[t.slot].n_row;
    }
  }
  void merge(int, int first_head, int n_head) override {
    const int group = shape_.n_head / shape_.n_head_kv;
    for (int h = 0; h < n_head; ++h)
      for (int s = h * shape_.slots_per_head; s < (h + 1) * shape_.slots_per_head; ++s) {
        Sum& sum = layers_[shape_.layer][(first_head + h) / group];
        sum.mass += slots_[s].mass;
        sum.n_row += slots_[s].n_row;
        slots_[s] = {};
      }
  }
  double of(int layer, int head_kv) const {
    const Sum& s = layers_.at(layer).at(head_kv);
    return s.n_row > 0 ? s.mass / static_cast<double>(s.n_row) : 0;
  }
  // Of all layers that were seen.
  std::vector<std::pair<int, int>> heads() const {
    std::vector<std::pair<int, int>> all;
    for (const auto& [layer, sums] : layers_)
      for (int h = 0; h < static_cast<int>(sums.size()); ++h) all.emplace_back(layer, h);
    return all;
  }

 private:
  struct Sum {
    double mass = 0;
    int64_t n_row = 0;
  };
  AttentionShape shape_;
  std::vector<Sum> slots_;
  std::map<int, std::vector<Sum>> layers_;
};

// What all rows predict of one token: its loss, and the likeliest tokens.
struct Expected {
  double nll = 0;
  std::vector<std::pair<int, float>> likeliest;  // token, log probability

  Expected(const std::vector<float>& log_p, int next) : nll(-log_p[next]) {
    std::vector<int> order(log_p.size());
    std::iota(order.begin(), order.end(), 0);
    const size_t n = std::min<size_t>(kLikeliest, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(n), order.end(), [&](int a, int b) { return log_p[a] > log_p[b]; });
    for (size_t i = 0; i < n; ++i) likeliest.emplace_back(order[i], log_p[order[i]]);
  }

  // KL divergence, the tokens that are not among the likeliest counting as one: at most that over all tokens.
  double kl(const std::vector<float>& other) const {
    double sum = 0, rest = 1, other_rest = 1;
    for (const auto& [token, log_p] : likeliest) {
      sum += std::exp(log_p) * (log_p - other[token]);
      rest -= std::exp(log_p);
      other_rest -= std::exp(other[token]);
    }
    constexpr double kNothing = 1e-9;  // below it, differences of sums of floats say nothing
    return rest > kNothing && other_rest > kNothing ? sum + rest * std::log(rest / other_rest) : sum;
  }
};

class Calibrator {
 public:
  Calibrator(const CalibrateOptions& o, const Model& model, std::vector<int> tokens)
      : o_(o), n_vocab_(model.info().n_vocab), tokens_(std::move(tokens)),
        session_(model, {.n_context = 0, .n_batch = o.chunk, .n_thread = o.threads, .kv_type = "f16", .isa = o.isa, .attention = Attention::sinkscope,
                         .all_logits = true, .blas = !o.no_blas, .batch_invariant = false, .memory = MemoryOptions{}}) {}

  // Everything is kept: what the others are compared with. Returns the perplexity.
  double expect(FarMass& far) {
    session_.watch({&far});
    std::vector<std::vector<float>> log_p(o_.chunk);
    double nll = 0;
    run([&](int first, int n, const float* logits) {
      each(n, [&](int i) { session::log_probabilities(logits + static_cast<size_t>(i) * n_vocab_, n_vocab_, log_p[i]); });
      for (int i = 0; i < n; ++i) nll += expected_.emplace_back(log_p[i], tokens_[first + i + 1]).nll;
    });
    session_.watch({});
    return std::exp(nll / static_cast<double>(expected_.size()));
  }

  // The head keeps the sinks and its last rows, `window` in all.
  void shorten(CalibratedHead& head, int window, const std::vector<int32_t>& sinks) {
    const policy::Options options{.budget = 0, .n_batch = o_.chunk, .sinks = 0, .protect = sinks};
    session_.keep_by(std::make_shared<policy::FirstAndLast>(options, policy::HeadRows{{{head.layer, head.head_kv}, window}}));
    std::vector<double> loss(o_.chunk), kl(o_.chunk);
    double loss_sum = 0, kl_sum = 0;
    run([&](int first, int n, const float* logits) {
      each(n, [&](int i) {
        std::vector<float> log_p;
        session::log_probabilities(logits + static_cast<size_t>(i) * n_vocab_, n_vocab_, log_p);
        loss[i] = -log_p[tokens_[first + i + 1]] - expected_[first + i].nll;
        kl[i] = expected_[first + i].kl(log_p);
      });
      loss_sum += std::accumulate(loss.begin(), loss.begin() + n, 0.0);
      kl_sum += std::accumulate(kl.begin(), kl.begin() + n, 0.0);
    });
    head.loss.push_back(loss_sum / static_cast<double>(expected_.size()));
    head.kl.push_back(kl_sum / static_cast<double>(expected_.size()));
  }

 private:
  // body(first, n, logits) for the tokens that have a next one.
  void run(const std::function<void(int, int, const float*)>& body) {
    std::vector<float> logits;
    const int n_token = static_cast<int>(tokens_.size());
    for (int first = 0; first < n_token; first += o_.chunk) {
      const std::span<const int> chunk = std::span(tokens_).subspan(first, std::min(o_.chunk, n_token - first));
      if (first == 0) session_.run(chunk, &logits);
      else session_.append(chunk, &logits);
      if (const int n = std::min(static_cast<int>(chunk.size()), n_token - 1 - first); n > 0) body(first, n, logits.data());
    }
  }
  void each(int n, const std::function<void(int)>& body) {
    attention::run_tasks(n, session_.n_thread(), [&](int i, int) { body(i); });
  }

  const CalibrateOptions& o_;
  int n_vocab_;
  std::vector<int> tokens_;
  Session session_;
  std::vector<Expected> expected_;  // of each token but the first
};

Json head_json(const CalibratedHead& h) {
  return {{"layer", h.layer}, {"head_kv", h.head_kv}, {"loss", h.loss}, {"kl", h.kl}, {"far_mass", h.far_mass}};
}

void write_map(const CalibrateOptions& o, const Json& map) {
  AtomicFile file(o.sink_map);
  file.write(session::dumped(map));
  file.commit();
}

}  // namespace

Calibration calibrate(const CalibrateOptions& o, const Progress& progress) {
  check(o);
  const Model model(o.model);
  const bool bos = session::wants_bos(o.bos, model.info());
  Json map;
  const policy::SinkMap before = policy::read_sink_map(o.sink_map, {io::sha256_of_file(model.info().file), bos}, &map);
  const std::string text = session::read_text(o.text);
  std::vector<int> tokens = session::first_tokens(model, text, session::named(o.text), bos, o.tokens, 2);

  check_windows(o, static_cast<int>(tokens.size()));

  Calibration c{.model = model.info(), .windows = o.windows, .n_token = static_cast<int>(tokens.size()), .ppl = 0, .heads = {}};
  // What was measured before in the same way is not measured again.
  const Json same = {{"text_sha256", io::sha256(text)}, {"n_token", c.n_token}, {"windows", o.windows}, {"chunk", o.chunk}, {"bos", bos}};
  Json& calibration = map["calibration"];
  if (calibration.is_object())
    for (const auto& [key, value] : same.items())
      if (calibration.value(key, Json()) != value)
        throw InputError(fmt::format("'{}' is calibrated with {} {}, not {}; give that, or a new map of sinkscope profile --sinkmap", o.sink_map, key, calibration.value(key, Json()).dump(), value.dump()));

  Calibrator calibrator(o, model, std::move(tokens));
  FarMass far;
  c.ppl = calibrator.expect(far);
  const std::vector<int> slides = windows(model.impl());
  std::vector<std::pair<int, int>> heads = far.heads();
  std::erase_if(heads, [&](const auto& h) { return h.first < static_cast<int>(slides.size()) && slides[h.first] > 0; });
  if (heads.empty()) throw InputError(fmt::format("'{}' has no layer that sees all tokens, so there is nothing to calibrate", c.model.file));

  if (!calibration.is_object()) {
    calibration = same;
    calibration["n_head"] = heads.size(), calibration["heads"] = Json::array();
  }
  calibration["ppl"] = c.ppl;
  for (size_t i = 0; i < heads.size(); ++i) {
    const auto [layer, head_kv] = heads[i];
    CalibratedHead head{.layer = layer, .head_kv = head_kv, .loss = {}, .kl = {}, .far_mass = far.of(layer, head_kv)};
    if (i < calibration["heads"].size()) {
      head.loss = before.heads[i].loss;
      head.kl = before.heads[i].kl;
    } else {
      for (const int w : o.windows) calibrator.shorten(head, w, before.positions);
      calibration["heads"].push_back(head_json(head));
      write_map(o, map);
    }
    c.heads.push_back(head);
    if (progress) progress("heads", static_cast<int64_t>(i) + 1, static_cast<int64_t>(heads.size()));
  }
  return c;
}

}  // namespace sinkscope
