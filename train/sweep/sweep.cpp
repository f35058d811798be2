#include "sweep/sweep.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <sstream>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include "io/gnuplot.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "training/trainer.h"

namespace sinkscope::train {
namespace {

namespace fs = std::filesystem;
struct Setting {
  std::string key, value;  // as text
  int line;
};

std::string text_of(const toml::node& node) {
  if (const auto* text = node.as_string()) return **text;
  if (const auto* x = node.as_floating_point()) return shortest(**x);
  std::ostringstream out;
  node.visit([&](const auto& n) { out << n; });
  return out.str();
}

// Every combination of the values of all keys.
std::vector<std::vector<Setting>> combinations(const toml::table* grid, const std::string& path) {
  std::vector<std::vector<Setting>> all = {{}};
  if (!grid) return all;
  for (const auto& [key, node] : *grid) {
    const toml::array* values = node.as_array();
    if (node.is_table())
      throw InputError(fmt::format("{}, line {}: grid.{} holds further keys; put the whole name into quotes, as in \"training.seed\" = [1, 2, 3]", path, node.source().begin.line, key.str()));
    if (!values || values->empty()) throw InputError(fmt::format("{}, line {}: grid.{} is no list; give values as in [1, 2, 3]", path, node.source().begin.line, key.str()));
    std::vector<std::vector<Setting>> more;
    for (const std::vector<Setting>& settings : all)
      for (const toml::node& value : *values) {
        more.push_back(settings);
        more.back().push_back({std::string(key.str()), text_of(value), static_cast<int>(value.source().begin.line)});
      }
    all = std::move(more);
  }
  return all;
}

std::vector<std::vector<Setting>> variants_of(const toml::node* node, const std::string& path) {
  if (!node) return {{}};
  const toml::array* list = node->as_array();
  std::vector<std::vector<Setting>> all;
  for (size_t i = 0; list && i < list->size(); ++i)
    if (const toml::table* table = list->get(i)->as_table()) {
      std::vector<Setting>& settings = all.emplace_back();
      for (const auto& [key, value] : *table) {
        if (value.is_table())
          throw InputError(fmt::format("{}, line {}: {} holds further keys; put the whole name into quotes, as in \"model.attention\" = \"sigmoid\"", path, value.source().begin.line, key.str()));
        settings.push_back({std::string(key.str()), text_of(value), static_cast<int>(value.source().begin.line)});
      }
    }
  if (all.empty()) throw InputError(fmt::format("{}, line {}: variants is no list of tables; write [[variants]] and keys under it", path, node->source().begin.line));
  return all;
}

std::string short_name(const std::string& key) { return key.substr(key.find('.') + 1); }

struct Spread {
  double sum = 0, least = 0, most = 0;
  int n = 0;
  void add(double x) {
    if (std::isnan(x)) return;
    least = n == 0 ? x : std::min(least, x), most = n == 0 ? x : std::max(most, x);
    sum += x, ++n;
  }
  std::string text(int digits) const {
    if (n == 0) return "not measured";
    if (n == 1) return fmt::format("{:.{}f}", sum, digits);
    return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]", sum / n, digits, least, digits, most, digits);
  }
};

double peak(const std::vector<double>& ratios) { return ratios.empty() ? 0 : *std::ranges::max_element(ratios); }

constexpr struct {
  const char *name, *head;
  int digits;
  double (*of)(const Measurement&);
} kColumns[] = {
    {"validation", "loss", 3, [](const Measurement& m) { return m.validation; }},
    {"sink_rate", "sink rate, %", 1, [](const Measurement& m) { return m.sink_rate; }},
    {"alpha", "attention to the first token", 3, [](const Measurement& m) { return m.alpha; }},
    {"share", "of what a row gives", 3, [](const Measurement& m) { return m.share.value_or(std::numeric_limits<double>::quiet_NaN()); }},
    {"gated", "through the gate", 3, [](const Measurement& m) { return m.gated_alpha; }},
    {"strongest", "strongest head", 3, [](const Measurement& m) { return m.strongest; }},
    {"norm", "residual peak", 2, [](const Measurement& m) { return peak(m.norm_ratio); }},
    {"top", "largest number / median", 1, [](const Measurement& m) { return peak(m.top_ratio); }},
    {"value", "value drain", 2, [](const Measurement& m) { return m.value_ratio.empty() ? 0 : *std::ranges::min_element(m.value_ratio); }},
    {"mass", "mass of a row", 3, [](const Measurement& m) { return m.mass; }},
};

struct Group {
  std::string name;
  std::vector<std::vector<Measurement>> curves;  // by seed
};

std::vector<Group> finished(const Sweep& sweep, const std::string& folder) {
  std::vector<Group> groups;
  for (const SweepRun& run : sweep.runs) {
    const fs::path at = fs::path(folder) / run.name;
    if (!fs::exists(at / "telemetry.jsonl")) continue;
    std::vector<Measurement> curve = read_telemetry(at.string());
    if (curve.size() < 2) continue;
    auto group = std::ranges::find(groups, run.group, &Group::name);
    if (group == groups.end()) group = groups.insert(groups.end(), {run.group, {}});
    group->curves.push_back(std::move(curve));
  }
  return groups;
}

// A text in gnuplot's single quotes, in which nothing has a meaning but the quote itself.
std::string quoted(const std::string& text) {
  std::string twice;
  for (const char c : text) twice += c == '\'' ? std::string("''") : std::string(1, c);
  return "'" + twice + "'";
}

void draw(const std::vector<Group>& groups, const std::string& title, const char* label, double (*of)(const Measurement&), const std::string& path) {
  std::string script = fmt::format("set terminal svg size 760,420 background rgb 'white'\nset title {} noenhanced\nset xlabel 'tokens trained on, millions'\nset ylabel {}\n"
                                   "set key outside below\nset grid\n", quoted(title), quoted(label));
  std::string plots;
  for (size_t g = 0; g < groups.size(); ++g) {
    bool named = false;
    for (size_t s = 0; s < groups[g].curves.size(); ++s) {
      std::string points;
      for (const Measurement& m : groups[g].curves[s])
        if (!std::isnan(of(m))) points += fmt::format("{} {}\n", static_cast<double>(m.tokens) / 1e6, of(m));
      if (points.empty()) continue;
      script += fmt::format("$d{}_{} << EOD\n{}EOD\n", g, s, points);
      plots += fmt::format("{}$d{}_{} with lines linewidth 2 linetype {} {}", plots.empty() ? "" : ", ", g, s, g + 1, std::exchange(named, true) ? "notitle" : fmt::format("title {} noenhanced", quoted(groups[g].name)));
    }
  }
  if (plots.empty()) return;
  AtomicFile file(path);
  file.write(io::svg_of(script + "plot " + plots + "\n"));
  file.commit();
}

}  // namespace

Sweep read_sweep(const std::string& path) {
  const std::string text = read_toml(path, "a sweep");
  toml::table table;
  try {
    table = toml::parse(text, path);
  } catch (const toml::parse_error& e) {
    throw InputError(fmt::format("{}, line {}: this is not TOML ({}); write key = value", path, e.source().begin.line, e.description()));
  }
  const auto is = [&](const char* key, toml::node_type type, const char* wanted) {
    if (const toml::node* node = table.get(key); node && node->type() != type)
      throw InputError(fmt::format("{}, line {}: {} is not {}", path, node->source().begin.line, key, wanted));
  };
  is("title", toml::node_type::string, "a text; write it in quotes");
  is("equal_loss", toml::node_type::boolean, "a truth; write true or false");
  is("grid", toml::node_type::table, "a table; write [grid] and lists under it");
  Sweep sweep{.title = table["title"].value_or(fs::path(path).stem().string()), .equal_loss = table["equal_loss"].value_or(false), .runs = {}};
  const auto grid = combinations(table["grid"].as_table(), path), list = variants_of(table.get("variants"), path);
  constexpr const char* kOurs[] = {"title", "equal_loss", "grid", "variants"};
  const Parsed base = parse_run_config(text, path, kOurs);
  std::vector<RunConfig> configs;
  // All variants of the first seed come before the second one's: they compare early.
  for (const auto& settings : grid)
    for (const auto& variant : list) {
      SweepRun run{.name = {}, .group = {}, .config = base.config, .lines = base.lines};
      std::vector<std::string> parts, without_seed;
      std::map<std::string, int> own;
      for (const auto* chosen : {&variant, &settings})
        for (const auto& [key, value, line] : *chosen) {
          try {
            set_key(run.config, key, value);
          } catch (const UsageError& e) {
            throw InputError(fmt::format("{}, line {}: {}", path, line, e.what()));
          }
          run.lines[key] = own[key] = line;
          parts.push_back(fmt::format("{}={}", short_name(key), value));
          if (key != "training.seed") without_seed.push_back(parts.back());
        }
      check(run.config, path, run.lines);
      check_given({&run.config, 1}, path, own);
      configs.push_back(run.config);
      run.name = parts.empty() ? "run" : fmt::format("{}", fmt::join(parts, ","));
      run.group = without_seed.empty() ? "as configured" : fmt::format("{}", fmt::join(without_seed, ", "));
      if (std::ranges::count(sweep.runs, run.name, &SweepRun::name) > 0) throw InputError(fmt::format("{}: there are two runs '{}'; give each once", path, run.name));
      sweep.runs.push_back(std::move(run));
    }
  check_given(configs, path, base.lines);
  return sweep;
}

namespace {

// Between two neighbours of a curve: `share` of the way from the measurement before `at` to it.
struct Place {
  size_t at = 0;
  double share = 1;
  double read(const std::vector<Measurement>& curve, double (*of)(const Measurement&)) const {
    return at == 0 ? of(curve[0]) : (1 - share) * of(curve[at - 1]) + share * of(curve[at]);
  }
};

double loss_of(const Measurement& m) { return m.validation; }
double tokens_of(const Measurement& m) { return static_cast<double>(m.tokens) / 1e6; }

Place end_of(const std::vector<Measurement>& curve) { return {.at = curve.size() - 1}; }

// Where `of` first is at `target`, or beyond it: below for what falls, above for what rises.
constexpr double kFalls = 1, kRises = -1;
Place place_of(double target, double (*of)(const Measurement&), double direction, const std::vector<Measurement>& curve) {
  for (size_t i = 0; i < curve.size(); ++i)
    if (direction * (of(curve[i]) - target) <= 0) return {.at = i, .share = i == 0 ? 1 : (of(curve[i - 1]) - target) / (of(curve[i - 1]) - of(curve[i]))};
  return end_of(curve);
}

// A row for each group, of what `place(curve)` says each run has come to.
template <class PlaceOf>
std::string table_of(const std::vector<Group>& groups, const PlaceOf& place) {
  std::string text = "| variant | seeds | M tokens | sinks set in at, M tokens |", line = "\n|---|---|---|---|";
  for (const auto& c : kColumns) text += fmt::format(" {} |", c.head), line += "---|";
  text += line + "\n";
  for (const Group& group : groups) {
    Spread tokens, set_in;
    for (const auto& curve : group.curves) {
      const Place p = place(curve);
      tokens.add(p.read(curve, tokens_of));
      if (const int at = onset({curve.begin(), curve.begin() + static_cast<std::ptrdiff_t>(p.share < 1 ? p.at : p.at + 1)}); at >= 0) set_in.add(tokens_of(curve[at]));
    }
    text += fmt::format("| {} | {} | {} | {} |", group.name, group.curves.size(), tokens.text(1),
                        set_in.n == 0 ? "never" : set_in.text(1) + (set_in.n < static_cast<int>(group.curves.size()) ? fmt::format(", {} of {}", set_in.n, group.curves.size()) : ""));
    for (const auto& c : kColumns) {
      Spread spread;
      for (const auto& curve : group.curves) spread.add(place(curve).read(curve, c.of));
      text += fmt::format(" {} |", spread.text(c.digits));
    }
    text += "\n";
  }
  return text;
}

}  // namespace

void write_summary(const Sweep& sweep, const std::string& folder) {
  const std::vector<Group> groups = finished(sweep, folder);
  if (groups.empty()) return;
  double loss = 0, shortest = std::numeric_limits<double>::infinity(), longest = 0;
  for (const Group& group : groups)
    for (const auto& curve : group.curves) {
      loss = std::max(loss, loss_of(curve.back()));
      shortest = std::min(shortest, tokens_of(curve.back())), longest = std::max(longest, tokens_of(curve.back()));
    }
  std::string text = fmt::format("# {}\n\nAt the last measurement of each run:\n\n{}", sweep.title, table_of(groups, end_of));
  if (longest > shortest)
    text += fmt::format("\nAfter {:.2f}M tokens, where the shortest run ended:\n\n{}", shortest, table_of(groups, [shortest](const std::vector<Measurement>& curve) { return place_of(shortest, tokens_of, kRises, curve); }));
  if (sweep.equal_loss)
    text += fmt::format("\nWhere each run's loss first came down to {:.3f}, the largest that one of them ended with:\n\n{}", loss,
                        table_of(groups, [loss](const std::vector<Measurement>& curve) { return place_of(loss, loss_of, kFalls, curve); }));
  AtomicFile file((fs::path(folder) / "summary.md").string());
  file.write(text);
  file.commit();
  for (const auto& c : kColumns) draw(groups, sweep.title, c.head, c.of, (fs::path(folder) / fmt::format("{}.svg", c.name)).string());
}

}  // namespace sinkscope::train
