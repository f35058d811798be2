#include "measure/metrics.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace sinkscope::measure {
namespace {

// What each key would get if every row spread its attention evenly over the keys it sees.
std::vector<float> uniform_alpha(const LayerRecord& record, int n_token) {
  std::vector<double> step(n_token + 1, 0);  // differences: a row adds the same to a run of keys
  std::vector<int> n_row(n_token + 1, 0);
  for (int i = 0; i < n_token; ++i) {
    const int begin = record.rows[i].begin, end = std::min(record.rows[i].end, n_token);
    if (begin >= end) continue;
    step[begin] += 1.0 / (end - begin);
    step[end] -= 1.0 / (end - begin);
    ++n_row[begin];
    --n_row[end];
  }
  std::vector<float> alpha(n_token, 0);
  double sum = 0;
  for (int k = 0, n = 0; k < n_token; ++k) {
    sum += step[k];
    n += n_row[k];
    if (n > 0) alpha[k] = static_cast<float>(sum / n);
  }
  return alpha;
}

double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

}  // namespace

void Tally::grow(std::span<const LayerRecord> layers, int n_token) {
  const size_t n = std::max<size_t>(n_token, n_prompt_at_.size());
  n_prompt_at_.resize(n);
  column_share_.resize(n);
  column_sum_.resize(n);
  percent_at_.resize(n);
  rows_at_.resize(n);
  tokens_at_.resize(n);
  if (layers_.size() < layers.size()) layers_.resize(layers.size());
  for (size_t l = 0; l < layers.size(); ++l) {
    Layer& layer = layers_[l];
    layer.learned_sink |= layers[l].learned_sink;
    if (layer.heads.size() < static_cast<size_t>(layers[l].n_head)) layer.heads.resize(layers[l].n_head);
    layer.uniform_alpha_sum.resize(n);
    layer.n_uniform_sink.resize(n);
    for (Head& head : layer.heads) {
      head.alpha_sum.resize(n);
      head.n_sink.resize(n);
    }
  }
}

void Tally::add(const Recorder& prompt, std::span<const int> tokens) {
  const int n = prompt.n_token();
  grow(prompt.layers(), n);
  ++n_prompt_;
  std::vector<int> n_sink_head(n, 0);
  std::vector<double> mass(n, 0);
  std::vector<uint32_t> n_row(n, 0);
  Means means;
  int n_head = 0;
  for (size_t l = 0; l < prompt.layers().size(); ++l) {
    const LayerRecord& record = prompt.layers()[l];
    add_layer(record, layers_[l], n, n_sink_head, means);
    n_head += record.n_head;
    for (int h = 0; h < record.n_head; ++h)
      for (int k = 0; k < n; ++k) {
        mass[k] += record.column_sum[static_cast<size_t>(h) * n + k];
        n_row[k] = std::max(n_row[k], record.key_n_row(h, k, n));
      }
  }
  const double all = std::accumulate(mass.begin(), mass.end(), 0.0);
  mass_ += all / std::max(n_head, 1) / n;
  for (int k = 0; k < n; ++k) {
    ++n_prompt_at_[k];
    ++tokens_at_[k][tokens[k]];
    if (all > 0) column_share_[k] += mass[k] / all;
    column_sum_[k] += mass[k] / std::max(n_head, 1);
    percent_at_[k].push_back(static_cast<float>(percent(n_sink_head[k], n_head)));
    rows_at_[k] = std::max(rows_at_[k], n_row[k]);
    if (k == 0 || static_cast<int>(n_row[k]) < min_rows_ || n_head == 0) continue;
    TokenCount& count = tokens_[tokens[k]];
    ++count.n;
    count.sink_share += static_cast<double>(n_sink_head[k]) / n_head;
  }
  for (double& mean : means.first_mass) mean /= std::max(n_head, 1);
  means.strongest_is_first = percent(means.strongest_is_first, n_head);
  means_.push_back(means);
  shortest_ = n_prompt_ == 1 ? n : std::min(shortest_, n);
}

void Tally::add_layer(const LayerRecord& record, Layer& layer, int n, std::vector<int>& n_sink_head, Means& sums) {
  if (record.n_head == 0) return;
  const std::vector<float> uniform = uniform_alpha(record, n);
  for (int k = 0; k < n; ++k) {
    layer.uniform_alpha_sum[k] += uniform[k];
    layer.n_uniform_sink[k] += uniform[k] > epsilon_;
  }

  const int first_of_last = std::max(0, n - kLastRows);
  for (int i = first_of_last; i < n; ++i)
    for (int f = 0; f < kNumFirst; ++f) {
      const RowView& view = record.rows[i];
      const int n_seen = view.end - view.begin, n_first = std::clamp(kFirstKeys[f] - view.begin, 0, std::max(n_seen, 0));
      if (n_seen > 0) layer.uniform_first_mass[f] += static_cast<double>(n_first) / n_seen / (n - first_of_last);
    }

  for (int h = 0; h < record.n_head; ++h) {
    Head& head = layer.heads[h];
    const size_t at = static_cast<size_t>(h) * n;
    for (int k = 0; k < n; ++k) {
      const uint32_t n_row = record.key_n_row(h, k, n);
      if (n_row == 0) continue;
      const double alpha = double{record.column_sum[at + k]} / n_row;
      head.alpha_sum[k] += static_cast<float>(alpha);
      if (!(alpha > epsilon_)) continue;
      ++head.n_sink[k];
      ++n_sink_head[k];
    }
    double strongest_is_first = 0, learned_sink_mass = 0;
    for (int i = 0; i < n; ++i) {
      head.entropy += record.entropy[at + i] / n;
      strongest_is_first += (record.strongest[at + i] == 0 ? 1.0 : 0.0) / n;
      if (record.learned_sink) learned_sink_mass += record.learned_sink_mass[at + i] / n;
    }
    head.strongest_is_first += strongest_is_first;
    sums.strongest_is_first += strongest_is_first;
    head.learned_sink_mass += learned_sink_mass;
    head.n_learned_sink += learned_sink_mass > epsilon_;
    for (int f = 0; f < kNumFirst; ++f) {
      double mass = 0;
      for (int i = first_of_last; i < n; ++i) mass += record.first_mass[record.first_mass_at(h, i, n) + f];
      head.first_mass[f] += mass / (n - first_of_last);
      sums.first_mass[f] += mass / (n - first_of_last);
    }
  }
}

int Tally::n_head() const {
  int n = 0;
  for (const Layer& layer : layers_) n += static_cast<int>(layer.heads.size());
  return n;
}

// value(layer, head, position), a sum over prompts, becomes a mean over the prompts that reach the position.
template <class Value>
std::vector<double> Tally::mean_over_heads(const Value& value) const {
  std::vector<double> mean(n_prompt_at_.size(), 0);
  for (const Layer& layer : layers_)
    for (const Head& head : layer.heads)
      for (size_t k = 0; k < mean.size(); ++k) mean[k] += value(layer, head, k);
  for (size_t k = 0; k < mean.size(); ++k) mean[k] /= std::max(1.0, static_cast<double>(n_head()) * n_prompt_at_[k]);
  return mean;
}

SinkRate Tally::sink_rate(uint32_t seed) const {
  SinkRate rate;
  rate.by_position = mean_over_heads([](const Layer&, const Head& head, size_t k) { return 100.0 * head.n_sink[k]; });
  rate.alpha_by_position = mean_over_heads([](const Layer&, const Head& head, size_t k) { return head.alpha_sum[k]; });
  rate.uniform_alpha_by_position =
      mean_over_heads([](const Layer& layer, const Head&, size_t k) { return layer.uniform_alpha_sum[k]; });
  rate.null_by_position =
      mean_over_heads([](const Layer& layer, const Head&, size_t k) { return 100.0 * layer.n_uniform_sink[k]; });
  rate.sum_by_position = column_sum_;
  rate.share_by_position = column_share_;
  for (size_t k = 0; k < column_share_.size(); ++k) {
    rate.sum_by_position[k] /= n_prompt_at_[k];
    rate.share_by_position[k] /= n_prompt_at_[k];
  }
  if (!rate.by_position.empty()) {
    rate.first = rate.by_position[0];
    rate.null = rate.null_by_position[0];
  }
  if (!percent_at_.empty()) rate.first_ci95 = bootstrap_ci95(percent_at_[0], seed);
  return rate;
}

std::vector<LayerProfile> Tally::layers() const {
  std::vector<LayerProfile> profiles;
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    LayerProfile p;
    p.layer = static_cast<int>(l);
    p.measured = !layer.heads.empty();
    p.learned_sink = layer.learned_sink;
    const double n_head = std::max<double>(1, static_cast<double>(layer.heads.size()));
    for (size_t h = 0; h < layer.heads.size(); ++h) {
      const Head& head = layer.heads[h];
      p.heads.push_back({.head = static_cast<int>(h), .alpha_first = head.alpha_sum[0] / n_prompt_,
                         .sink_rate_first = percent(head.n_sink[0], n_prompt_), .entropy = head.entropy / n_prompt_,
                         .strongest_is_first = percent(head.strongest_is_first, n_prompt_),
                         .first_share = head.first_mass[0] / n_prompt_,
                         .learned_sink_mass = head.learned_sink_mass / n_prompt_});
      p.sink_rate_first += p.heads.back().sink_rate_first / n_head;
      p.first_share += p.heads.back().first_share / n_head;
      p.entropy += p.heads.back().entropy / n_head;
      p.strongest_is_first += p.heads.back().strongest_is_first / n_head;
    }
    profiles.push_back(std::move(p));
  }
  return profiles;
}

std::optional<LearnedSink> Tally::learned_sink() const {
  LearnedSink sink;
  double n = 0;
  for (const Layer& layer : layers_)
    for (const Head& head : layer.heads) {
      if (!layer.learned_sink) continue;
      sink.alpha += head.learned_sink_mass;
      sink.sink_rate += 100.0 * head.n_learned_sink;
      n += n_prompt_;
    }
  if (n == 0) return std::nullopt;
  return LearnedSink{sink.alpha / n, sink.sink_rate / n};
}

double Tally::strongest_is_first() const {
  double sum = 0;
  for (const Means& prompt : means_) sum += prompt.strongest_is_first;
  return sum / std::max(n_prompt_, 1);
}

std::optional<Interval> Tally::strongest_is_first_ci95(uint32_t seed) const {
  std::vector<float> values;
  for (const Means& prompt : means_) values.push_back(static_cast<float>(prompt.strongest_is_first));
  return bootstrap_ci95(values, seed);
}

FirstShare Tally::first_share(uint32_t seed) const {
  FirstShare first;
  first.last_rows = std::min(shortest_, kLastRows);
  for (int f = 0; f < kNumFirst; ++f) {
    double mass = 0, uniform = 0;
    for (const Layer& layer : layers_)
      for (const Head& head : layer.heads) {
        mass += head.first_mass[f];
        uniform += layer.uniform_first_mass[f];
      }
    const double n = std::max(1, n_head() * n_prompt_);
    first.n.push_back(kFirstKeys[f]);
    first.share.push_back(mass / n);
    first.uniform.push_back(uniform / n);
    first.boost.push_back(uniform > 0 ? mass / uniform : 0);
    std::vector<float> values;
    for (const Means& prompt : means_) values.push_back(static_cast<float>(prompt.first_mass[f]));
    if (const auto interval = bootstrap_ci95(values, seed)) first.share_ci95.push_back(*interval);
  }
  return first;
}

std::vector<Sink> Tally::sinks(uint32_t seed) const {
  const SinkRate rate = sink_rate(seed);
  std::vector<Sink> sinks;
  for (size_t k = 0; k < n_prompt_at_.size(); ++k) {
    if (!says_something(rate, k) || static_cast<int>(rows_at_[k]) < min_rows_) continue;
    const auto usual = std::max_element(tokens_at_[k].begin(), tokens_at_[k].end(),
                                        [](const auto& a, const auto& b) { return a.second < b.second; });
    Sink sink;
    sink.position = static_cast<int>(k);
    sink.token = usual->first;
    sink.token_share = static_cast<double>(usual->second) / n_prompt_at_[k];
    sink.sink_rate = rate.by_position[k];
    sink.alpha = rate.alpha_by_position[k];
    sink.sink_rate_ci95 = bootstrap_ci95(percent_at_[k], seed);
    for (size_t l = 0; l < layers_.size(); ++l)
      for (size_t h = 0; h < layers_[l].heads.size(); ++h) {
        const Head& head = layers_[l].heads[h];
        if (2 * static_cast<int>(head.n_sink[k]) >= n_prompt_at_[k] && head.n_sink[k] > 0)
          sink.heads.push_back({static_cast<int>(l), static_cast<int>(h), head.alpha_sum[k] / n_prompt_at_[k]});
      }
    sinks.push_back(std::move(sink));
  }
  return sinks;
}

std::vector<SinkToken> Tally::sink_tokens() const {
  std::vector<SinkToken> found;
  for (const auto& [token, count] : tokens_) {
    const double rate = percent(count.sink_share, count.n);
    if (rate > kSinkPositionPercent && count.n >= kMinOccurrences) found.push_back({.token = token, .text = "", .n = count.n, .sink_rate = rate});
  }
  std::sort(found.begin(), found.end(), [](const SinkToken& a, const SinkToken& b) { return a.sink_rate > b.sink_rate; });
  return found;
}

bool says_something(const SinkRate& rate, size_t position) {
  return rate.by_position[position] > kSinkPositionPercent && rate.null_by_position[position] < rate.by_position[position] / 2;
}

std::optional<Interval> bootstrap_ci95(std::span<const float> values, uint32_t seed) {
  constexpr int kResamples = 2000;
  const size_t n = values.size();
  if (n < 2) return std::nullopt;
  std::mt19937_64 random(seed);
  std::vector<double> means(kResamples, 0);
  for (double& mean : means)
    for (size_t i = 0; i < n; ++i) mean += values[random() % n] / static_cast<double>(n);
  std::sort(means.begin(), means.end());
  const auto quantile = [&](double q) { return means[static_cast<size_t>(q * (kResamples - 1) + 0.5)]; };
  return Interval{quantile(0.025), quantile(0.975)};
}

}  // namespace sinkscope::measure
