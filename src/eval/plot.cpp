#include "eval/plot.h"

#include <fmt/format.h>

#include "eval/candidate.h"
#include "io/gnuplot.h"

namespace sinkscope::eval_run {
namespace {

std::string label(const EvalResult& r) {
  std::string text = r.policy;
  if (r.kv_type != "f16") text += " " + r.kv_type;
  if (r.budget_rows > 0) text += fmt::format(" {}", r.budget_rows);
  if (r.sinks > 0) text += fmt::format(", {} sinks", r.sinks);
  return text;
}

double mebibytes(const EvalResult& r) { return static_cast<double>(r.kv_bytes) / (1 << 20); }

std::string over_position(const Eval& e) {
  std::string data, plots;
  for (size_t i = 0; i < e.results.size(); ++i) {
    const EvalResult& r = e.results[i];
    data += fmt::format("$line{} << END\n", i);
    for (size_t p = 0; p < r.ppl_by_1024.size(); ++p)
      data += fmt::format("{} {}\n", (static_cast<size_t>(e.options.skip + 1) / kTokensPerPoint + p + 1) * kTokensPerPoint, r.ppl_by_1024[p]);
    data += "END\n";
    plots += fmt::format("{}$line{} using 1:2 with linespoints pointtype 7 pointsize .3 title '{}'", i ? ", " : "plot ", i, label(r));
  }
  return data + "set xlabel 'position, tokens'\nset ylabel 'perplexity of the last 1,024'\n" + plots + "\n";
}

std::string over_bytes(const Eval& e) {
  const bool asks = e.options.task != "text";
  std::string data = "$points << END\n";
  for (const EvalResult& r : e.results) data += fmt::format("{} {} \"{}\"\n", mebibytes(r), asks ? r.accuracy() : r.ppl, label(r));
  return data + fmt::format("END\nset xlabel 'memory, MiB'\nset ylabel '{}'\nset logscale x 2\nset offsets graph .1, graph .3, graph .1, graph .1\n"
                            "plot $points using 1:2 with points pointtype 7 notitle, $points using 1:2:3 with labels left offset 1,0 font ',9' notitle\n",
                            asks ? "right answers, per cent" : "perplexity");
}

}  // namespace

std::string to_svg(const Eval& e) {
  bool has_lines = !e.results.empty();
  for (const EvalResult& r : e.results) has_lines &= r.ppl_by_1024.size() > 1;
  const std::string script = fmt::format("set terminal svg size {},440 noenhanced font 'sans-serif,11' background rgb 'white'\nset multiplot layout 1,{}\n"
                                         "set grid\nset key top right\n", has_lines ? 1200 : 640, has_lines ? 2 : 1) +
                             (has_lines ? over_position(e) : "") + over_bytes(e) + "unset multiplot\n";
  return io::svg_of(script);
}

}  // namespace sinkscope::eval_run
