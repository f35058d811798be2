#include "profile_view.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace sinkscope::cli {
namespace {

constexpr int kMostRows = 12;  // of each list

// One cell of the plain map: the tenths of its value.
std::string plain_cell(double value) {
  static constexpr std::string_view kShades = " .:-=+*#%@";
  return std::string(1, kShades[std::min<size_t>(static_cast<size_t>(std::clamp(value, 0.0, 1.0) * 10), 9)]);
}

// Layers x heads of alpha_first. Heads that do not fit side by side are joined, the strongest of them shown.
std::string heat_map(const Profile& p, const Terminal& t) {
  size_t n_head = 1;
  for (const LayerProfile& l : p.layers) n_head = std::max(n_head, l.heads.size());
  constexpr int kMargin = 22;
  const int room = std::max(t.width - kMargin, 8);
  const int joined = static_cast<int>((n_head + room - 1) / room);
  const int cell = joined == 1 && 2 * static_cast<int>(n_head) <= room ? 2 : 1;
  std::string text = fmt::format("Mean attention to the first token, layers x heads{}\nlayer {}\n",
                                 joined > 1 ? fmt::format(", {} heads a cell", joined) : "",
                                 t.colour ? shaded(0, " 0 ", true) + shaded(.5, " .5 ", true) + shaded(1, "\x1b[30m 1 ", true)
                                          : "' '.:-=+*#%@ in tenths");
  for (const LayerProfile& l : p.layers) {
    text += fmt::format("{:>5} ", l.layer);
    if (!l.measured) {
      text += "(no attention that could be measured)\n";
      continue;
    }
    for (size_t h = 0; h < n_head; h += joined) {
      double alpha = 0;
      for (size_t i = h; i < std::min(h + joined, l.heads.size()); ++i) alpha = std::max(alpha, l.heads[i].alpha_first);
      for (int c = 0; c < cell; ++c) text += t.colour ? shaded(alpha, " ", true) : plain_cell(alpha);
    }
    text += fmt::format("  {:3.0f} % sink\n", l.sink_rate_first);
  }
  return text;
}

std::string quoted(const std::string& text) { return "`" + printable(text) + "`"; }

std::string more(size_t n) {
  return n > kMostRows ? fmt::format("  ... and {} more (all of them in --json)\n", n - kMostRows) : "";
}

std::string sinks(const Profile& p) {
  if (p.sinks.empty())
    return fmt::format("No position is a sink: none that {} rows or more see has more than 25 % of heads above epsilon, and more than twice "
                       "the null.\n", p.run.min_rows);
  std::string text = "Sinks: positions that more than 25 % of heads sink on\n  position  sink rate  attention  heads  token\n";
  for (size_t i = 0; i < std::min<size_t>(p.sinks.size(), kMostRows); ++i) {
    const Sink& s = p.sinks[i];
    text += fmt::format("  {:8}  {:7.2f} %  {:9.3f}  {:5}  {}{}\n", s.position, s.sink_rate, s.alpha, s.heads.size(), quoted(s.text),
                        s.token_share == 1 ? "" : s.token_share < .5 ? " and others" : fmt::format(" in {:.0f} % of prompts", 100 * s.token_share));
  }
  return text + more(p.sinks.size());
}

std::string tokens(const Profile& p) {
  if (p.tokens.empty()) return "";
  std::string text = "\nSink tokens, wherever they stand behind the first position\n  sink rate  occurrences  token\n";
  for (size_t i = 0; i < std::min<size_t>(p.tokens.size(), kMostRows); ++i)
    text += fmt::format("  {:7.2f} %  {:11}  {}\n", p.tokens[i].sink_rate, p.tokens[i].n, quoted(p.tokens[i].text));
  return text + more(p.tokens.size());
}

std::string interval(const std::optional<Interval>& ci) {
  return ci ? fmt::format(" [{:.2f}, {:.2f}]", ci->low, ci->high) : "";
}

std::string numbers(const Profile& p) {
  std::string text = fmt::format("Sink rate of the first token (epsilon {:g}, {} of {}): {:.2f} %{}, null {:.2f} %\n", p.run.epsilon,
                                 counted(p.run.n_prompt, "prompt"),
                                 p.run.shortest == p.run.length ? counted(p.run.length, "token")
                                                                : fmt::format("{} to {} tokens", p.run.shortest, p.run.length),
                                 p.sink_rate.first, interval(p.sink_rate.first_ci95), p.sink_rate.null);
  for (const Baseline& b : p.baselines)
    text += fmt::format("  with {} instead: {:.2f} %{}\n", b.kind == "repeat" ? "one token repeated" : "random tokens", b.sink_rate.first,
                        interval(b.sink_rate.first_ci95));
  for (size_t i = 0; i < p.first.n.size(); ++i)
    text += fmt::format("Mass on the first {}, over the last {} rows: {:.1f} %{}, {:.1f} times uniform\n",
                        p.first.n[i] == 1 ? "key" : fmt::format("{} keys", p.first.n[i]), p.first.last_rows, 100 * p.first.share[i],
                        p.first.share_ci95.empty() ? "" : interval(Interval{100 * p.first.share_ci95[i].low, 100 * p.first.share_ci95[i].high}),
                        p.first.boost[i]);
  text += fmt::format("Strongest key is the first in {:.1f} % of rows{}\n", p.strongest_is_first, interval(p.strongest_is_first_ci95));
  if (p.learned_sink)
    text += fmt::format("Learned sinks take {:.1f} % of the mass; {:.2f} % of their heads give them more than epsilon\n", 100 * p.learned_sink->alpha,
                        p.learned_sink->sink_rate);
  return text;
}

std::string speed(const Profile& p) {
  return fmt::format("{} tokens in {:.2f} s: {:.0f} tokens/s on {} ({}), peak memory {:.0f} MiB\n", p.run.n_token, p.run.seconds,
                     p.run.tokens_per_second, counted(p.run.threads, "thread"), p.run.isa, static_cast<double>(p.run.peak_rss_bytes) / (1 << 20));
}

}  // namespace

std::string view(const Profile& p, const Terminal& t) {
  const std::string text = printable(p.answer()) + "\n\n" + heat_map(p, t) + "\n" + sinks(p) + tokens(p) + "\n" + numbers(p) + speed(p);
  return t.wraps ? wrapped(text, t.width) : text;
}

}  // namespace sinkscope::cli
