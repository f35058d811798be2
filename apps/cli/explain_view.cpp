#include "explain_view.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sinkscope::cli {
namespace {

constexpr size_t kMostRows = 12;  // of each list

std::string quoted(const std::string& text) { return "`" + printable(text) + "`"; }

std::string more(size_t n) { return n > kMostRows ? fmt::format("  ... and {} more (all of them in --json)\n", n - kMostRows) : ""; }

// Mean over the heads of a layer that sink.
template <class Field>
double of_sinking(const LayerCause& l, const Field& field) {
  double sum = 0, n = 0;
  for (const HeadCause& h : l.heads)
    if (h.sinks >= 0.5) sum += field(h), ++n;
  return n > 0 ? sum / n : 0;
}

std::string layers(const Explanation& e) {
  std::string text = fmt::format("{:>5}  {:^29}  {:^48}  {:^15}\n{:>5}  {:>9} {:>9} {:>9}  {:>5} {:>9} {:>11} {:>9} {:>10}  {:>15}\n", "", "hidden state: length", "heads that sink: sink key / other keys",
                                 "value length", "layer", "first", "others", "top/med", "heads", "|k|", "cos", "logit", "no key", "first / others");
  for (const LayerCause& l : e.layers) {
    text += fmt::format("{:>5}  ", l.layer < 0 ? "in" : std::to_string(l.layer));
    text += l.hidden ? fmt::format("{:>9.1f} {:>9.1f} {:>9.0f}", l.norm_first, l.norm_median, l.top_over_median) : fmt::format("{:>29}", "not named");
    const auto n_sink = std::ranges::count_if(l.heads, [](const HeadCause& h) { return h.sinks >= 0.5; });
    if (!l.heads.empty()) {
      text += fmt::format("  {:>5} ", fmt::format("{}/{}", n_sink, l.heads.size()));
      const auto two = [&](double a, double b, int digits) { return n_sink ? fmt::format("{:.{}f}/{:.{}f}", a, digits, b, digits) : "-"; };
      text += fmt::format("{:>9} {:>11} {:>9} {:>8}", two(of_sinking(l, [](auto& h) { return h.key_norm; }), of_sinking(l, [](auto& h) { return h.other_key_norm; }), 1),
                          two(of_sinking(l, [](auto& h) { return h.cos; }), of_sinking(l, [](auto& h) { return h.other_cos; }), 2),
                          two(of_sinking(l, [](auto& h) { return h.logit; }), of_sinking(l, [](auto& h) { return h.other_logit; }), 1),
                          n_sink ? fmt::format("{:.1f} %", 100 * of_sinking(l, [](auto& h) { return h.null_mass; })) : "-");
      text += fmt::format("  {:>17}", fmt::format("{:.2f} / {:.2f}", l.value_norm_first, l.value_norm_median));
    }
    text += "\n";
  }
  return text;
}

std::string outliers(const Explanation& e) {
  if (e.outliers.empty()) return "No number of a hidden state stands out: none is massive, none 20 times the root mean square of its token.\n";
  std::string text = "Numbers of hidden states that stand out (* massive: over 100 and 1,000 medians)\n     value     x median  dimension  position  layers   rises in            falls in            token\n";
  for (size_t i = 0; i < std::min(e.outliers.size(), kMostRows); ++i) {
    const Outlier& o = e.outliers[i];
    const auto by = [](int layer, const std::string& part) { return layer < 0 ? std::string("-") : fmt::format("layer {}, {}", layer, part); };
    text += fmt::format("{} {:>9.1f} {:>10.0f} {:>10} {:>9}  {:>7}  {:<18}  {:<18}  {}\n", o.massive ? "*" : " ", o.value, o.over_median, o.dim, o.position,
                        fmt::format("{}-{}", o.first_layer < 0 ? "in" : std::to_string(o.first_layer), o.last_layer), by(o.rises_in, o.rises_by), by(o.falls_in, o.falls_by), quoted(o.text));
  }
  return text + more(e.outliers.size());
}

std::string secondary(const Explanation& e) {
  std::vector<const SecondarySink*> living;
  for (const SecondarySink& s : e.secondary)
    if (s.kind != "noise") living.push_back(&s);
  if (living.empty()) return "";
  std::string text = "\nTokens that come to point where the first one does (cos > 0.9)\n  prompt  position  layers   kind       token\n";
  for (size_t i = 0; i < std::min(living.size(), kMostRows); ++i)
    text += fmt::format("  {:>6}  {:>8}  {:>7}  {:<9}  {}\n", living[i]->prompt, living[i]->position, fmt::format("{}-{}", living[i]->first_layer, living[i]->last_layer),
                        living[i]->kind, quoted(living[i]->text));
  return text + more(living.size());
}

std::string experts(const Explanation& e) {
  if (e.experts.empty()) return "";
  std::vector<ExpertUse> sorted = e.experts;
  std::ranges::stable_sort(sorted, [](const ExpertUse& a, const ExpertUse& b) { return a.is_super != b.is_super ? a.is_super : a.sink_share - a.other_share > b.sink_share - b.other_share; });
  std::string text = "\nExperts that sinks are sent to, those first that other tokens are not (* super expert)\n   layer.expert  of sinks  of others  router: sinks  others  largest output\n";
  for (size_t i = 0; i < std::min(sorted.size(), kMostRows); ++i) {
    const ExpertUse& x = sorted[i];
    text += fmt::format(" {} {:>12}  {:>6.1f} %  {:>7.1f} %  {:>13.3f}  {:>6.3f}  {:>14.1f}\n", x.is_super ? "*" : " ", fmt::format("{}.{}", x.layer, x.expert), 100 * x.sink_share,
                        100 * x.other_share, x.sink_weight, x.other_weight, x.largest_output);
  }
  if (e.d_sink) text += fmt::format("Without the super experts {:.1f} % of the mass on sink tokens is gone\n", 100 * *e.d_sink);
  return text + more(sorted.size());
}

std::string dormant(const Explanation& e) {
  if (e.dormant.empty()) return "";
  std::string text = "\nHeads that sink on one prompt and work on another; what silencing costs there, nats per token\n  layer.head  attention to the first key  loss\n";
  for (const DormantHead& d : e.dormant)
    text += fmt::format("  {:>10}  {:.2f} on prompt {}, {:.2f} on prompt {}  {:+.4f}, {:+.4f}\n", fmt::format("{}.{}", d.layer, d.head), d.alpha_sinking, d.sinking_prompt, d.alpha_working,
                        d.working_prompt, d.loss_sinking, d.loss_working);
  return text;
}

// How far one changed token moves the others, behind the last layer that says.
std::string perturbation(const Explanation& e) {
  for (auto l = e.layers.rbegin(); l != e.layers.rend(); ++l)
    if (l->moved && l->moved_without_first)
      return fmt::format("\nOne changed token moves the others by {:.2f} % of their length behind layer {}; by {:.2f} % when nobody can look at the first token\n", 100 * *l->moved, l->layer,
                         100 * *l->moved_without_first);
  return "";
}

std::string missing(const Explanation& e) {
  std::string text;
  for (const std::string& m : e.missing) text += fmt::format("Not named by this architecture: {}\n", m);
  return text.empty() ? "" : "\n" + text;
}

}  // namespace

std::string view(const Explanation& e, const Terminal& t) {
  const std::string text = printable(e.answer()) + "\n\n" + layers(e) + "\n" + outliers(e) + secondary(e) + experts(e) + dormant(e) + perturbation(e) + missing(e);
  return t.wraps ? wrapped(text, t.width) : text;
}

}  // namespace sinkscope::cli
