// Writing SVG: shapes in pixels, text that is escaped, the colours of apps/report/palette.json.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sinkscope::report {

struct Palette {
  std::string ink, paper, grid, accent;
  std::vector<std::string> series, ramp;  // ramp: from nothing to all
};
const Palette& palette();
std::string ramp_colour(double share);  // 0 to 1

// For XML: what has a meaning there is escaped; control characters become their pictures (U+2400 ...), what no XML can hold U+FFFD.
std::string escaped(std::string_view text);

class Svg {
 public:
  struct Line {
    std::string colour;
    double width = 1;
    const char* dash = "";
  };
  struct Text {
    double size = 12;
    const char* anchor = "start";  // start, middle, end
    bool bold = false;
    std::string colour = palette().ink;
  };

  // `title` is what screen readers say.
  Svg(double width, double height, std::string_view title);
  void line(double x1, double y1, double x2, double y2, const Line& style);
  void path(const std::vector<std::pair<double, double>>& points, const Line& style);
  void rectangle(double x, double y, double width, double height, const std::string& fill);
  void circle(double x, double y, double radius, const std::string& fill, const std::string& stroke);
  void text(double x, double y, std::string_view text, const Text& style);
  std::string str() const;

 private:
  std::string body_;
};

}  // namespace sinkscope::report
