#include "intervene/edit.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sinkscope/error.h"

namespace sinkscope::intervene {
namespace {

using Kind = Edit::Kind;
using Where = Edit::Where;

constexpr Grammar kGrammar[] = {
    {Kind::mask, Where::attention, "mask", "positions", "layers heads", "no query but its own sees these positions", ""},
    {Kind::scale, Where::attention, "scale", "positions gamma", "layers heads",
     "multiplies the weight of these positions by gamma and renormalises: logit + ln gamma", "ZeroTuning, 2505.11739"},
    {Kind::act, Where::attention, "act", "beta", "threshold layers heads",
     "keys other than the first whose mean weight is above threshold (0.1) keep beta of it, the others share the rest", "ACT, 2406.15765"},
    {Kind::silence, Where::attention, "silence", "heads", "", "these heads add nothing", ""},
    {Kind::off_by_one, Where::attention, "off-by-one", "", "layers heads", "softmax with 1 more in its denominator", "StreamingLLM, 2309.17453"},
    {Kind::sink_logits, Where::attention, "sink-logits", "file", "layers heads", "learned sinks: a JSON array [layer][head] of logits", "gpt-oss"},
    {Kind::zero, Where::hidden, "zero", "dims", "positions of layers", "these numbers of what leaves a layer, or of what its MLP adds (of=mlp), become 0",
     "2402.17762"},
    {Kind::mean, Where::hidden, "mean", "dims positions", "of layers", "they become their mean over the prompts", "2402.17762"},
    {Kind::clamp, Where::hidden, "clamp", "dims limit", "positions of layers", "their magnitude is bounded", ""},
    {Kind::silence_experts, Where::hidden, "silence-experts", "experts", "", "these experts add nothing", "2507.23279"},
    {Kind::no_bos, Where::input, "no-bos", "", "", "prompts without their BOS", ""},
    {Kind::first_token, Where::input, "first", "token", "", "another first token", ""},
    {Kind::copies, Where::input, "copies", "count", "", "so many copies of the first token in place of one", ""},
    {Kind::move, Where::input, "move", "to", "", "the first token stands at another position", ""},
};

const Grammar& info(Kind kind) { return *std::ranges::find(kGrammar, kind, &Grammar::kind); }

bool names(const char* words, std::string_view word) {
  for (std::string_view rest = words; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    if (rest.substr(0, end) == word) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(by);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

template <class Number>
std::optional<Number> number(std::string_view text) {
  Number n{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(n) : std::nullopt;
}

// One key and its value, with the sentence that says what is wrong.
class Value {
 public:
  Value(const std::string& edit, std::string_view key, std::string_view text) : edit_(edit), key_(key), text_(text) {}

  [[noreturn]] void refuse(const char* expected) const {
    throw UsageError(fmt::format("--edit '{}': {}={} is no {}", edit_, key_, text_, expected));
  }
  float real() const {
    const auto n = number<float>(text_);
    if (!n || !std::isfinite(*n)) refuse("number; give one as in gamma=0.5");
    return *n;
  }
  int integer() const {
    const auto n = number<int>(text_);
    if (!n || *n < 0) refuse("whole number from 0 on");
    return *n;
  }
  // 0/7/10-12
  std::vector<int> integers() const {
    std::vector<int> list;
    for (const std::string_view part : split(text_, '/')) {
      const std::vector<std::string_view> ends = split(part, '-');
      const auto first = number<int>(ends[0]), last = number<int>(ends.back());
      constexpr int kMost = 1 << 20;
      if (ends.size() > 2 || !first || !last || *first < 0 || *last < *first || *last > kMost) refuse("list of whole numbers; give one as in 0/7/10-12");
      for (int i = *first; i <= *last; ++i) list.push_back(i);
    }
    std::ranges::sort(list);
    list.erase(std::unique(list.begin(), list.end()), list.end());
    return list;
  }
  // 3.7/4.0
  std::vector<std::pair<int, int>> pairs() const {
    std::vector<std::pair<int, int>> list;
    for (const std::string_view part : split(text_, '/')) {
      const std::vector<std::string_view> two = split(part, '.');
      const auto layer = number<int>(two[0]), index = number<int>(two.back());
      if (two.size() != 2 || !layer || !index || *layer < 0 || *index < 0) refuse("list of layers and their parts; give one as in 3.7/4.0");
      list.emplace_back(*layer, *index);
    }
    return list;
  }

 private:
  const std::string& edit_;
  std::string_view key_, text_;
};

void set(Edit& e, std::string_view key, const Value& value, std::string_view text) {
  if (key == "positions") e.positions = value.integers();
  else if (key == "layers") e.layers = value.integers();
  else if (key == "heads") e.heads = value.pairs();
  else if (key == "experts") e.experts = value.pairs();
  else if (key == "dims") e.dims = value.integers();
  else if (key == "gamma") e.gamma = value.real();
  else if (key == "beta") e.beta = value.real();
  else if (key == "threshold") e.threshold = value.real();
  else if (key == "limit") e.limit = value.real();
  else if (key == "count") e.count = value.integer();
  else if (key == "token") e.token = value.integer();
  else if (key == "to") e.to = value.integer();
  else if (key == "file") e.file = text;
  else if (text == "hidden" || text == "mlp") e.of = text;
  else value.refuse("part of a layer; use of=hidden or of=mlp");
}

Edit parse_one(const std::string& spec, std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const auto* found = std::ranges::find(kGrammar, name, [](const Grammar& g) { return std::string_view(g.name); });
  if (found == std::end(kGrammar)) {
    std::vector<const char*> all;
    for (const Grammar& g : kGrammar) all.push_back(g.name);
    throw UsageError(fmt::format("--edit '{}': '{}' is no edit; use one of: {}", spec, name, fmt::join(all, ", ")));
  }
  const Grammar& kind = *found;
  Edit edit{.kind = kind.kind};
  std::vector<std::string_view> given;
  for (const std::string_view pair : colon == std::string_view::npos ? std::vector<std::string_view>() : split(text.substr(colon + 1), ',')) {
    const size_t equals = pair.find('=');
    const std::string_view key = pair.substr(0, equals);
    if (equals == std::string_view::npos || (!names(kind.required, key) && !names(kind.optional, key)))
      throw UsageError(fmt::format("--edit '{}': {} takes no '{}'; {}", spec, name, pair,
                                   *kind.required || *kind.optional ? fmt::format("give key=value, with these keys: {} {}", kind.required, kind.optional)
                                                                    : std::string("it takes nothing")));
    if (std::ranges::find(given, key) != given.end()) throw UsageError(fmt::format("--edit '{}': {} is given twice; give it once", spec, key));
    given.push_back(key);
    const std::string_view value = pair.substr(equals + 1);
    set(edit, key, Value(spec, key, value), value);
  }
  for (const std::string_view key : split(kind.required, ' '))
    if (!key.empty() && std::ranges::find(given, key) == given.end()) throw UsageError(fmt::format("--edit '{}': {} needs {}=...; give it", spec, name, key));
  if (edit.gamma < 0) throw UsageError(fmt::format("--edit '{}': gamma={} would make weights negative; give 0 or more", spec, edit.gamma));
  if (!(edit.beta >= 0 && edit.beta <= 1)) throw UsageError(fmt::format("--edit '{}': beta={} is no share; give 0 to 1", spec, edit.beta));
  if (edit.limit < 0) throw UsageError(fmt::format("--edit '{}': limit={} is negative; give 0 or more", spec, edit.limit));
  if (edit.kind == Kind::copies && edit.count < 1) throw UsageError(fmt::format("--edit '{}': count={} leaves no first token; give 1 or more, or no-bos", spec, edit.count));
  return edit;
}

void below(const char* name, const std::string& what, const auto& list, int n) {
  for (const auto x : list)
    if (x >= n) throw UsageError(fmt::format("--edit {}: there is no {} {} here; use 0 to {}", name, what, x, n - 1));
}

}  // namespace

Where Edit::where() const { return info(kind).where; }

bool Edit::at_layer(int layer) const { return layers.empty() || std::ranges::binary_search(layers, layer); }

bool Edit::at_head(int layer, int head) const { return at_layer(layer) && (heads.empty() || std::ranges::find(heads, std::pair(layer, head)) != heads.end()); }

std::span<const Grammar> grammar() { return kGrammar; }

std::vector<Edit> parse(const std::string& spec) {
  std::vector<Edit> edits;
  for (const std::string_view part : split(spec, '+')) edits.push_back(parse_one(spec, part));
  return edits;
}

namespace {

void check_one(const Edit& e, const Shape& s) {
  const char* name = info(e.kind).name;
  below(name, "layer", e.layers, s.n_layer);
  below(name, "position", e.positions, s.n_token);
  below(name, "dimension", e.dims, s.n_embd);
  for (const auto& [list, what, n] : {std::tuple(&e.heads, "head", s.n_head), std::tuple(&e.experts, "expert", s.n_expert)})
    for (const auto& [layer, index] : *list)
      if (layer >= s.n_layer || index >= n)
        throw UsageError(n == 0 ? fmt::format("--edit {}: this model has no {}s; use another edit", name, what)
                                : fmt::format("--edit {}: there is no {} {}.{} here; use layers 0 to {} and {}s 0 to {}", name, what, layer, index, s.n_layer - 1, what, n - 1));
  if (e.kind == Kind::first_token) below(name, "token", std::vector{e.token}, s.n_vocab);
  if (e.kind == Kind::move) below(name, "position", std::vector{e.to}, s.n_token);
}

// Some kinds leave a head in one state, which the next of them would overwrite.
enum class State { none, normalisation, calm };
State state_of(const Edit& e) {
  if (e.kind == Kind::off_by_one || e.kind == Kind::sink_logits) return State::normalisation;
  return e.kind == Kind::act ? State::calm : State::none;
}

bool meet(const Edit& a, const Edit& b, const Shape& s) {
  for (int l = 0; l < s.n_layer; ++l)
    for (int h = 0; h < s.n_head; ++h)
      if (a.at_head(l, h) && b.at_head(l, h)) return true;
  return false;
}

}  // namespace

void check(std::span<const Edit> edits, const Shape& shape) {
  for (size_t i = 0; i < edits.size(); ++i) {
    check_one(edits[i], shape);
    for (size_t j = 0; j < i; ++j)
      if (state_of(edits[i]) != State::none && state_of(edits[i]) == state_of(edits[j]) && meet(edits[i], edits[j], shape))
        throw UsageError(fmt::format("--edit {}+{}: both change the same heads in one way, and only one can; give them different layers or heads", info(edits[j].kind).name,
                                     info(edits[i].kind).name));
  }
}

}  // namespace sinkscope::intervene
