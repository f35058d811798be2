#include "report/svg.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "palette_json.h"

namespace sinkscope::report {

const Palette& palette() {
  static const Palette all = [] {
    const auto json = nlohmann::json::parse(kPaletteJson);
    return Palette{json.at("ink"), json.at("paper"), json.at("grid"), json.at("accent"), json.at("series"), json.at("ramp")};
  }();
  return all;
}

std::string ramp_colour(double share) {
  const std::vector<std::string>& ramp = palette().ramp;
  const double at = std::clamp(share, 0.0, 1.0) * static_cast<double>(ramp.size() - 1);
  const size_t low = std::min(static_cast<size_t>(at), ramp.size() - 2);
  const auto part = [&](size_t i, size_t digit) { return static_cast<double>(std::stoi(ramp[i].substr(digit, 2), nullptr, 16)); };
  std::string colour = "#";
  for (const size_t digit : {1, 3, 5}) colour += fmt::format("{:02x}", std::lround(std::lerp(part(low, digit), part(low + 1, digit), at - static_cast<double>(low))));
  return colour;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&quot;";
    else if (c < 0x20) out += fmt::format("&#{};", 0x2400 + c);
    else if (c == 0x7f) out += fmt::format("&#{};", 0x2421);
    else if (text.substr(i).starts_with("\xef\xbf\xbe") || text.substr(i).starts_with("\xef\xbf\xbf")) out += "\xef\xbf\xbd", i += 2;
    else out += text[i];
  }
  return out;
}

Svg::Svg(double width, double height, std::string_view title) {
  body_ = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" "
                      "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\">\n<title>{2}</title>\n", width, height, escaped(title));
  rectangle(0, 0, width, height, palette().paper);
}

void Svg::line(double x1, double y1, double x2, double y2, const Line& style) { path({{x1, y1}, {x2, y2}}, style); }

void Svg::path(const std::vector<std::pair<double, double>>& points, const Line& style) {
  if (points.empty()) return;
  std::string d;
  for (const auto& [x, y] : points) d += fmt::format("{}{:.1f} {:.1f}", d.empty() ? "M" : "L", x, y);
  const std::string dash = *style.dash ? fmt::format(" stroke-dasharray=\"{}\"", style.dash) : "";
  body_ += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{:g}\"{}/>\n", d, style.colour, style.width, dash);
}

void Svg::rectangle(double x, double y, double width, double height, const std::string& fill) {
  body_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n", x, y, width, height, fill);
}

void Svg::circle(double x, double y, double radius, const std::string& fill, const std::string& stroke) {
  body_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"{}\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", x, y, radius, fill, stroke);
}

void Svg::text(double x, double y, std::string_view text, const Text& style) {
  body_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:g}\" text-anchor=\"{}\" fill=\"{}\"{}>{}</text>\n", x, y, style.size, style.anchor, style.colour,
                       style.bold ? " font-weight=\"600\"" : "", escaped(text));
}

std::string Svg::str() const { return body_ + "</svg>\n"; }

}  // namespace sinkscope::report
