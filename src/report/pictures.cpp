#include "report/pictures.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "report/svg.h"

namespace sinkscope::report {
namespace {

using nlohmann::json;
using Points = std::vector<std::pair<double, double>>;

constexpr double kWidth = 860, kMargin = 24, kAxisLeft = 64, kPlotHeight = 200;
constexpr double kLetter = 6.2, kWideLetter = 7.4;  // of a text of 12 pixels: on average, and at most but for M and W

double number(const json& value) { return value.is_number() ? value.get<double>() : NAN; }

// Pieces of a text that fit into a width, broken at spaces.
std::vector<std::string> wrapped(const std::string& text, double width, double size) {
  const auto most = static_cast<size_t>(width / (kLetter * size / 12));
  std::vector<std::string> lines;
  std::string line;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!line.empty() && line.size() + 1 + word.size() > most) lines.push_back(std::exchange(line, word));
    else line += (line.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

// Its front, where it does not fit into a width.
std::string shortened(const std::string& text, double width) {
  auto n = static_cast<size_t>(width / kWideLetter);
  if (text.size() <= n) return text;
  while (n > 0 && (text[n] & 0xC0) == 0x80) --n;  // no half characters
  return text.substr(0, n) + "…";
}

// Panels one below the other: each is drawn at its place, and says how high it is.
struct Panel {
  double height;
  std::function<void(Svg&, double top)> draw;
};

std::string stacked(const std::string& title, std::string sentence, const std::vector<Panel>& panels) {
  std::erase(sentence, '`');  // around tokens, for terminals
  const std::vector<std::string> lines = wrapped(sentence, kWidth - 2 * kMargin, 12.5);
  double height = kMargin + 26 + 18 * static_cast<double>(lines.size());
  const double first = height;
  for (const Panel& p : panels) height += p.height;
  Svg svg(kWidth, height + kMargin, title);
  svg.text(kMargin, kMargin + 16, title, {.size = 18, .bold = true});
  for (size_t i = 0; i < lines.size(); ++i) svg.text(kMargin, kMargin + 40 + 18 * static_cast<double>(i), lines[i], {.size = 12.5});
  double top = first;
  for (const Panel& p : panels) p.draw(svg, top), top += p.height;
  return svg.str();
}

// From numbers to pixels.
struct Scale {
  double low, high, from, to;
  bool logarithmic = false;

  double operator()(double x) const {
    const auto f = [&](double v) { return logarithmic ? std::log10(v) : v; };
    return from + (to - from) * (f(std::clamp(x, low, high)) - f(low)) / (f(high) - f(low));
  }
  std::vector<double> ticks(int about) const {
    std::vector<double> all;
    if (logarithmic) {
      const bool is_short = high / low < 60;
      for (double x = std::pow(10, std::floor(std::log10(low))); x <= high * (1 + 1e-9); x *= 10)
        for (const double digit : {1, 2, 5})
          if ((digit == 1 || is_short) && digit * x >= low * (1 - 1e-9) && digit * x <= high * (1 + 1e-9)) all.push_back(digit * x);
      return all;
    }
    const double raw = (high - low) / about, unit = std::pow(10, std::floor(std::log10(raw)));
    const double step = unit * (raw / unit > 5 ? 10 : raw / unit > 2 ? 5 : raw / unit > 1 ? 2 : 1);
    for (double x = std::ceil(low / step - 1e-9) * step; x <= high + 1e-9 * step; x += step) all.push_back(std::abs(x) < step * 1e-9 ? 0 : x);
    return all;
  }
};

// Ends are 1, 2 or 5 times a power of ten.
double rounded_down(double x) {
  const double unit = std::pow(10, std::floor(std::log10(x)));
  return unit * (x >= 5 * unit ? 5 : x >= 2 * unit ? 2 : 1);
}
double rounded_up(double x) { return 1 / rounded_down(1 / x); }

Scale logarithms_of(const std::vector<Points>& lines, double from, double to) {
  double low = INFINITY, high = 0;
  for (const Points& line : lines)
    for (const auto& [x, y] : line)
      if (y > 0) low = std::min(low, y), high = std::max(high, y);
  if (!(high > 0)) low = 0.1, high = 1;
  low = rounded_down(low), high = rounded_up(high);
  return {low, high > low ? high : 10 * low, from, to, true};
}

void x_axis(Svg& svg, const Scale& x, double y, const std::string& label) {
  for (const double tick : x.ticks(10))
    if (tick == std::floor(tick)) svg.text(x(tick), y + 18, fmt::format("{:g}", tick), {.anchor = "middle"});
  svg.text((x.from + x.to) / 2, y + 38, label, {.anchor = "middle"});
}

void y_axis(Svg& svg, const Scale& y, double left, double right) {
  for (const double tick : y.ticks(5)) {
    svg.line(left, y(tick), right, y(tick), {palette().grid});
    svg.text(left - 8, y(tick) + 4, fmt::format("{:g}", tick), {.anchor = "end"});
  }
}

struct Curve {
  std::string name;
  Points points;
  Svg::Line style;
};

// A legend in one line, from the left.
void legend(Svg& svg, double x, double y, const std::vector<Curve>& curves) {
  for (const Curve& c : curves) {
    svg.line(x, y - 4, x + 22, y - 4, c.style);
    svg.text(x + 28, y, c.name, {});
    x += 28 + kLetter * static_cast<double>(c.name.size()) + 24;
  }
}

Panel curves_panel(std::string title, std::string x_label, std::vector<Curve> curves, std::function<void(Svg&, const Scale& x, const Scale& y)> more = {}) {
  std::erase_if(curves, [](const Curve& c) { return c.points.empty(); });
  return {kPlotHeight + 124, [=](Svg& svg, double top) {
            const double plot = top + 62, left = kMargin + kAxisLeft, right = kWidth - kMargin;
            std::vector<Points> lines;
            double low = INFINITY, high = -INFINITY;
            for (const Curve& c : curves) {
              lines.push_back(c.points);
              for (const auto& [x, y] : c.points) low = std::min(low, x), high = std::max(high, x);
            }
            if (!(low < high)) high = low + 1;
            const Scale x{low, high, left + 6, right - 6}, y = logarithms_of(lines, plot + kPlotHeight, plot);
            svg.text(kMargin, top + 22, title, {.size = 14, .bold = true});
            legend(svg, left, top + 46, curves);
            y_axis(svg, y, left, right);
            x_axis(svg, x, plot + kPlotHeight, x_label);
            for (const Curve& c : curves) {
              Points pixels;
              for (const auto& [px, py] : c.points)
                if (py > 0) pixels.emplace_back(x(px), y(py));
              svg.path(pixels, c.style);
            }
            if (more) more(svg, x, y);
          }};
}

// Layers from left to right, heads from top to bottom, each cell its head's mean attention to the first position.
Panel heads_panel(const json& profile) {
  const json& layers = profile.at("layers");
  size_t n_head = 1;
  for (const json& layer : layers) n_head = std::max(n_head, layer.at("heads").size());
  const double left = kMargin + kAxisLeft, right = kWidth - kMargin, cell_width = (right - left) / static_cast<double>(std::max<size_t>(layers.size(), 1));
  const double cell_height = std::clamp(260.0 / static_cast<double>(n_head), 5.0, 22.0), height = cell_height * static_cast<double>(n_head), gap = cell_height > 8 ? 1 : 0;
  return {height + 124, [=, &layers](Svg& svg, double top) {
            const double plot = top + 62;
            svg.text(kMargin, top + 22, "Mean attention to the first position, by layer and head", {.size = 14, .bold = true});
            constexpr int kSteps = 40;
            const double bar = 200, bar_left = left + 14;
            for (int i = 0; i < kSteps; ++i) svg.rectangle(bar_left + bar * i / kSteps, top + 36, bar / kSteps + .5, 10, ramp_colour((i + .5) / kSteps));
            svg.text(left, top + 45, "0", {});
            svg.text(bar_left + bar + 6, top + 45, "1", {});
            svg.text(bar_left + bar + 40, top + 45, "grey: not measured", {});
            svg.rectangle(bar_left + bar + 24, top + 36, 10, 10, palette().grid);
            for (size_t l = 0; l < layers.size(); ++l)
              for (size_t h = 0; h < n_head; ++h) {
                const json& heads = layers[l].at("heads");
                const double alpha = h < heads.size() ? number(heads[h].at("alpha_first")) : NAN;
                svg.rectangle(left + cell_width * static_cast<double>(l), plot + cell_height * static_cast<double>(h), cell_width - gap, cell_height - gap,
                              std::isnan(alpha) ? palette().grid : ramp_colour(alpha));
              }
            const auto labels = [](size_t n, double size) { return std::max<size_t>(1, static_cast<size_t>(std::ceil(26 / size * (n > 99 ? 1.2 : 1)))); };
            for (size_t l = 0; l < layers.size(); l += labels(layers.size(), cell_width))
              svg.text(left + cell_width * (static_cast<double>(l) + .5), plot + height + 18, std::to_string(l), {.anchor = "middle"});
            for (size_t h = 0; h < n_head; h += std::max<size_t>(1, static_cast<size_t>(std::ceil(14 / cell_height))))
              svg.text(left - 8, plot + cell_height * (static_cast<double>(h) + .5) + 4, std::to_string(h), {.anchor = "end"});
            svg.text((left + right) / 2, plot + height + 38, "layer", {.anchor = "middle"});
            svg.text(kMargin, plot + height / 2 + 4, "head", {});
          }};
}

Points by_index(const json& values, int first = 0) {
  Points points;
  for (size_t i = 0; i < values.size(); ++i)
    if (const double v = number(values[i]); v > 0) points.emplace_back(static_cast<double>(i) + first, v);
  return points;
}

Panel positions_panel(const json& profile) {
  const json &rate = profile.at("sink_rate"), &sinks = profile.at("sinks");
  return curves_panel("Mean attention to a position, over all layers and heads", "position",
                      {{"measured", by_index(rate.at("alpha_by_position")), {palette().series[0], 2}},
                       {"if attention were uniform", by_index(rate.at("uniform_alpha_by_position")), {palette().ink, 1, "4 4"}}},
                      [&sinks](Svg& svg, const Scale& x, const Scale& y) {
                        constexpr size_t kMostNames = 6;
                        for (size_t i = 0; i < sinks.size(); ++i) {
                          const json& s = sinks[i];
                          const double px = x(number(s.at("position"))), py = y(std::max(number(s.at("alpha")), y.low));
                          svg.circle(px, py, 4, palette().accent, palette().paper);
                          const bool is_left = px < kWidth * .7;  // else its name has no room on the right
                          if (i < kMostNames)
                            svg.text(px + (is_left ? 8 : -8), py + 4, fmt::format("{} {}", s.at("position").get<int>(), s.at("text").get<std::string>()),
                                     {.anchor = is_left ? "start" : "end", .colour = palette().accent});
                        }
                      });
}

// Of every layer that has it: json pointer to a number, or to null.
Points over_layers(const json& explained, const char* where) {
  Points points;
  const json::json_pointer at(where);
  for (const json& layer : explained.at("layers"))
    if (layer.contains(at) && number(layer.at(at)) > 0) points.emplace_back(number(layer.at("layer")), number(layer.at(at)));
  return points;
}

std::vector<Panel> explained_panels(const json& explained) {
  std::vector<Panel> panels;
  for (const auto& [title, first, median, sinks] :
       {std::tuple("Length of hidden states behind each layer (-1: before the first)", "/hidden/norm_first", "/hidden/norm_median", "/hidden/norm_sinks"),
        {"Length of values (sinks drain theirs)", "/value_norm_first", "/value_norm_median", "/value_norm_sinks"}}) {
    std::vector<Curve> curves = {{"first token", over_layers(explained, first), {palette().series[0], 2}},
                                 {"sink tokens", over_layers(explained, sinks), {palette().series[1], 1.5, "7 5"}},
                                 {"median of the others", over_layers(explained, median), {palette().series[2], 2}}};
    if (!curves[0].points.empty()) panels.push_back(curves_panel(title, "layer", std::move(curves)));
  }
  return panels;
}

Panel edits_panel(const json& ablated) {
  constexpr double kRow = 44;
  const json& edits = ablated.at("edits");
  return {kRow * static_cast<double>(edits.size()) + 84, [&edits](Svg& svg, double top) {
            size_t longest = 10;
            for (const json& e : edits) longest = std::max(longest, e.at("edit").get<std::string>().size());
            const double plot = top + 56, left = std::min(kMargin + kWideLetter * static_cast<double>(longest) + 20, kWidth * .5), right = kWidth - kMargin - 60;
            const double bottom = plot + kRow * static_cast<double>(edits.size());
            double low = 0, high = 0;
            const auto widen = [&](const json& change) {
              const json& ci = change.at("loss_change_ci95");
              for (const double v : {number(change.at("loss_change")), ci.is_array() ? number(ci[0]) : NAN, ci.is_array() ? number(ci[1]) : NAN})
                if (!std::isnan(v)) low = std::min(low, v), high = std::max(high, v);
            };
            for (const json& e : edits) {
              widen(e);
              if (e.at("control").is_object()) widen(e.at("control"));
            }
            if (!(low < high)) high = low + 1;
            const double room = (high - low) * .05;
            const Scale x{low < 0 ? low - room : 0, high + room, left, right};
            svg.text(kMargin, top + 22, "Change of the loss, nats per token", {.size = 14, .bold = true});
            const std::string &edit_colour = palette().series[0], &control_colour = palette().ink;
            svg.circle(kMargin + 6, top + 40, 5, edit_colour, edit_colour);
            svg.text(kMargin + 18, top + 44, "the edit", {});
            svg.circle(kMargin + 96, top + 40, 5, palette().paper, control_colour);
            svg.text(kMargin + 108, top + 44, "the same elsewhere, drawn at random; lines: 95 % intervals", {});
            for (const double tick : x.ticks(6)) {
              svg.line(x(tick), plot, x(tick), bottom, {tick == 0 ? palette().ink : palette().grid});
              svg.text(x(tick), bottom + 18, fmt::format("{:g}", tick), {.anchor = "middle"});
            }
            const auto dot = [&](const json& change, double y, const std::string& colour, const std::string& fill) {
              if (const json& ci = change.at("loss_change_ci95"); ci.is_array()) svg.line(x(number(ci[0])), y, x(number(ci[1])), y, {colour, 2.5});
              svg.circle(x(number(change.at("loss_change"))), y, 5, fill, colour);
            };
            for (size_t i = 0; i < edits.size(); ++i) {
              const json& e = edits[i];
              const double y = plot + kRow * (static_cast<double>(i) + .5);
              const bool has_control = e.at("control").is_object();
              svg.text(left - 12, y + 4, shortened(e.at("edit"), left - 12 - kMargin), {.anchor = "end"});
              dot(e, y - (has_control ? 7 : 0), edit_colour, edit_colour);
              if (has_control) dot(e.at("control"), y + 7, control_colour, palette().paper);
              svg.text(right + 10, y + 4, fmt::format("{:+.3f}", number(e.at("loss_change"))), {});
            }
          }};
}

}  // namespace

std::string picture(const std::string& text) {
  const json document = json::parse(text);
  const std::string model = document.at("model").at("name"), schema = document.at("schema");
  if (schema == "sinkscope.ablate/1")
    return stacked(fmt::format("{}: what edits change", model),
                   fmt::format("Loss as it is: {:.3f} nats per token; {} prompts of up to {} tokens", number(document.at("loss")), document.at("run").at("n_prompt").get<int>(),
                               document.at("run").at("length").get<int>()), {edits_panel(document)});
  std::vector<Panel> panels;
  if (schema == "sinkscope.profile/1") panels = {heads_panel(document), positions_panel(document)};
  for (Panel& p : explained_panels(document.value("explain", schema == "sinkscope.explain/1" ? document : json{{"layers", json::array()}}))) panels.push_back(std::move(p));
  return stacked(model, document.at("answer"), panels);
}

}  // namespace sinkscope::report
