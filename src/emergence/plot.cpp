#include "emergence/plot.h"

#include <algorithm>

#include <fmt/format.h>

#include "io/gnuplot.h"

namespace sinkscope::emergence_run {

std::string to_svg(const Emergence& e) {
  std::string script = "$points << END\n";
  bool has_norms = true;
  for (const EmergencePoint& p : e.points) {
    has_norms &= !p.norm_ratio.empty();
    script += fmt::format("{} {} {} {} {} {} {}\n", p.step, p.alpha, p.alpha_null, p.strongest.alpha, p.sink_rate, p.sink_null, p.norm_ratio.empty() ? 0 : std::ranges::max(p.norm_ratio));
  }
  script += "END\nset terminal svg size 1100,420 noenhanced font 'sans-serif,11' background rgb 'white'\nset multiplot layout 1,2\nset grid\nset key below\nset xlabel 'step'\nset offsets 0, 0, graph .05, 0\n";
  if (e.onset >= 0) script += fmt::format("set arrow from {0}, graph 0 to {0}, graph 1 nohead dashtype 2 linecolor rgb '#888888'\n", e.points[e.onset].step);
  const auto line = [](int column, const char* title, bool null = false) {
    return fmt::format("$points using 1:{} with linespoints pointtype 7 pointsize .4 {}title '{}'", column, null ? "dashtype 3 linecolor rgb '#888888' " : "", title);
  };
  script += "set ylabel 'attention to the first token'\nplot " + line(2, "mean") + ", " + line(4, "strongest head") + ", " + line(3, "uniform attention", true) + "\n";
  script += "set ylabel 'sink rate, per cent'\n";
  if (has_norms) script += "set y2label 'residual peak'\nset ytics nomirror\nset y2tics\n";
  script += "plot " + line(5, "sink rate") + ", " + line(6, "uniform attention", true) + (has_norms ? ", " + line(7, "residual peak") + " axes x1y2" : "") + "\nunset multiplot\n";
  return io::svg_of(script);
}

}  // namespace sinkscope::emergence_run
