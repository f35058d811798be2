#include "attention/reference.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace sinkscope::attention {
namespace {

double f16_value(uint16_t h) {
  const int sign = h >> 15, exponent = h >> 10 & 31, fraction = h & 1023;
  double value = exponent == 0    ? std::ldexp(fraction, -24)
                 : exponent == 31 ? (fraction ? std::nan("") : std::numeric_limits<double>::infinity())
                                  : std::ldexp(1024 + fraction, exponent - 25);
  return sign ? -value : value;
}

std::vector<double> decoded(const Rows& rows, int stream, int head_kv, int key, int d) {
  const std::byte* from = rows.row(stream, head_kv, key);
  std::vector<double> values(d);
  std::vector<float> floats(d);
  std::vector<uint16_t> halves(d);
  switch (rows.element) {
    case Element::f32: std::memcpy(floats.data(), from, d * sizeof(float)); break;
    case Element::coded: rows.decode(from, floats.data(), d); break;
    case Element::q8_0:
    case Element::q4_0:
      for (int i = 0; i < d; ++i) {
        const bool bytes = rows.element == Element::q8_0;
        const std::byte* block = from + i / 32 * (2 + (bytes ? 32 : 16));
        uint16_t scale;
        std::memcpy(&scale, block, sizeof scale);
        const auto at = [&](int j) { return static_cast<uint8_t>(block[2 + j]); };
        const int j = i % 32, nibble = j < 16 ? at(j) & 15 : at(j - 16) >> 4;
        floats[i] = static_cast<float>(f16_value(scale)) * static_cast<float>(bytes ? static_cast<int8_t>(at(j)) : nibble - 8);
      }
      break;
    case Element::q8_channel:
    case Element::q4_channel:
    case Element::q8_row:
    case Element::q4_row:
      for (int i = 0; i < d; ++i) {
        const bool bytes = zero_unit(rows.element) == 16, by_row = !rows.channels;
        const int unit_bytes = bytes ? 32 : 16, unit = i / 32, j = i % 32;
        // Grids before every second unit, if a row has its own.
        const std::byte* codes = from + unit * unit_bytes + (by_row ? 2 * (unit / 2 + 1) : 0);
        const std::byte* grid = from + unit / 2 * (2 * unit_bytes + 2);
        const int step = by_row ? static_cast<uint8_t>(grid[0]) : rows.channels[i].step;
        const int zero = by_row ? static_cast<int8_t>(grid[1]) : rows.channels[i].zero;
        const auto at = [&](int k) { return static_cast<uint8_t>(codes[k]); };
        const int code = bytes ? at(j) : j < 16 ? at(j) & 15 : at(j - 16) >> 4;
        floats[i] = static_cast<float>(std::ldexp(8 + step % 8, step / 8 - 23) * (code + (bytes ? 16 : 1) * zero));
      }
      break;
    case Element::f16:
      std::memcpy(halves.data(), from, d * sizeof(uint16_t));
      for (int i = 0; i < d; ++i) floats[i] = static_cast<float>(f16_value(halves[i]));
      break;
    case Element::bf16:
      std::memcpy(halves.data(), from, d * sizeof(uint16_t));
      for (int i = 0; i < d; ++i) floats[i] = std::bit_cast<float>(static_cast<uint32_t>(halves[i]) << 16);
      break;
  }
  for (int i = 0; i < d; ++i) values[i] = floats[i];
  return values;
}

std::vector<double> turned(const Call& c, const float* query, int turn) {
  std::vector<double> q(query, query + c.d_key);
  const Turns& t = c.turns;
  for (size_t i = 0; turn >= 0 && i < t.first.size(); ++i) {
    const double cos = t.cos[turn * t.first.size() + i], sin = t.sin[turn * t.first.size() + i];
    const double a = q[t.first[i]], b = q[t.second[i]];
    q[t.first[i]] = a * cos - b * sin;
    q[t.second[i]] = a * sin + b * cos;
  }
  return q;
}

// ACT: what the calmed keys lose goes to the others, but not to key 0.
void calm(const HeadEdit& edit, double* weights, int n_key) {
  std::vector<bool> calmed(n_key);
  for (const int k : edit.calmed) calmed[k] = true;
  double lost = 0, others = 0;
  for (int k = 0; k < n_key; ++k) {
    if (calmed[k]) lost += (1 - edit.calm) * weights[k], weights[k] *= edit.calm;
    else if (k > 0) others += weights[k];
  }
  for (int k = 1; k < n_key && others > 0; ++k)
    if (!calmed[k]) weights[k] += lost * weights[k] / others;
}

}  // namespace

float alibi_slope(const Call& call, int head) {
  if (call.max_bias <= 0) return 1;
  const int n = static_cast<int>(std::bit_floor(static_cast<unsigned>(call.n_head)));
  const float exponent = head < n ? -call.max_bias * static_cast<float>(head + 1) / static_cast<float>(n)
                                  : -call.max_bias / 2 * static_cast<float>(2 * (head - n) + 1) / static_cast<float>(n);
  return std::exp2(exponent);
}

Reference reference(const Call& c) {
  const int group = c.n_head / c.n_head_kv;
  Reference ref;
  ref.out.resize(static_cast<size_t>(c.n_stream) * c.n_query * c.n_head * c.d_value);
  for (int s = 0; s < c.n_stream; ++s)
    for (int h = 0; h < c.n_head; ++h) {
      const double slope = alibi_slope(c, h);
      const HeadEdit edit = c.edits.empty() ? HeadEdit{} : c.edits[h];
      const float* learned_sink = c.sigmoid ? nullptr : edit.learned_sink ? edit.learned_sink : c.learned_sink ? c.learned_sink + h : nullptr;
      const bool has_key = c.learned_key && !edit.learned_sink;
      std::vector<std::vector<double>> keys(c.n_key), values(c.n_key, std::vector<double>(c.d_value));
      std::vector<int> turns(c.n_key, -1);
      const Run whole{.begin = 0, .end = c.n_key, .k = c.k, .v = c.v};
      for (const Run& run : c.runs.empty() ? std::span(&whole, 1) : c.runs[h / group])
        for (int k = run.begin; k < run.end; ++k) {
          keys[k] = decoded(run.k, s, h / group, k - run.begin, c.d_key);
          values[k] = decoded(run.v, s, h / group, k - run.begin, c.d_value);
          turns[k] = run.turn;
        }
      for (int i = 0; i < c.n_query; ++i) {
        std::vector<double> logit(c.n_key);
        double learned = learned_sink ? *learned_sink : -std::numeric_limits<double>::infinity();
        if (has_key) {
          learned = 0;
          for (int d = 0; d < c.d_key; ++d) learned += c.scale * double{c.query(s, h, i)[d]} * c.learned_key[h / group * c.d_key + d];
        }
        double largest = learned;
        std::vector<double> query;
        for (int k = 0; k < c.n_key; ++k) {
          double dot = 0;
          if (k == 0 || turns[k] != turns[k - 1]) query = turned(c, c.query(s, h, i), turns[k]);
          for (int d = 0; d < c.d_key && !keys[k].empty(); ++d) dot += query[d] * keys[k][d];
          logit[k] = c.scale * dot;
          if (c.soft_cap != 0) logit[k] = c.soft_cap * std::tanh(logit[k] / c.soft_cap);
          if (c.mask.data) logit[k] += slope * f16_value(c.mask.row(s, h, i)[k]);
          if (!edit.bias.empty() && k != c.first_key + i) logit[k] += edit.bias[k];
          largest = std::max(largest, logit[k]);
        }
        double sum = std::isinf(learned) ? 0 : std::exp(learned - largest);
        for (double l : logit) sum += std::isinf(l) ? 0 : std::exp(l - largest);
        double entropy = 0, mass = 0;
        const auto surprise = [](double w) { return w > 0 ? -w * std::log(w) : 0; };
        double* out = ref.out.data() + ((static_cast<size_t>(s) * c.n_query + i) * c.n_head + h) * c.d_value;
        std::vector<double> weights(c.n_key);
        for (int k = 0; k < c.n_key; ++k) weights[k] = c.sigmoid ? 1 / (1 + std::exp(-logit[k])) : std::isinf(logit[k]) ? 0 : std::exp(logit[k] - largest) / sum;
        if (!edit.calmed.empty()) calm(edit, weights.data(), c.n_key);
        for (int k = 0; k < c.n_key; ++k) {
          const double w = edit.silent ? 0 : weights[k];
          ref.weights.push_back(w);
          entropy += surprise(weights[k]);
          mass += weights[k];
          for (int d = 0; d < c.d_value; ++d) out[d] += w * values[k][d];
        }
        ref.log_sum.push_back(sum > 0 ? std::log(sum) + largest : -std::numeric_limits<double>::infinity());
        const double sink = std::isinf(learned) ? 0 : std::exp(learned - largest) / sum;
        for (int d = 0; has_key && !edit.silent && d < c.d_value; ++d) out[d] += sink * c.learned_value[h / group * c.d_value + d];
        // Of shares: where weights sum to 1 this is the plain sum.
        mass += sink, entropy += surprise(sink);
        ref.entropy.push_back(edit.silent || mass == 0 ? 0 : entropy / mass + std::log(mass));
        ref.learned_sink_mass.push_back(sink);
      }
    }
  return ref;
}

}  // namespace sinkscope::attention
