#include "config/run_config.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>
#include <toml++/toml.h>
#include <unistd.h>

#include "data/packing.h"
#include "export/gguf.h"
#include "model/variants.h"
#include "sinkscope/error.h"

namespace sinkscope::train {
namespace {

#define SINKSCOPE_FIELD(type, member) (+[](RunConfig& c) -> type& { return c.member; })

std::vector<std::string> variant_names() {
  std::vector<std::string> names;
  for (const Variant& v : variants()) names.emplace_back(v.name);
  return names;
}

constexpr Condition kHasExperts = {"model.experts from 1 on", [](const RunConfig& c) { return c.model.n_expert > 0; }};
constexpr Condition kHasRope = {"model.position = rope", [](const RunConfig& c) { return c.model.position == "rope"; }};
constexpr Condition kClips = {"model.attention = clipped", [](const RunConfig& c) { return c.model.attention == "clipped"; }};

const std::vector<Key>& table() {
  static const std::vector<Key> keys = {
      {.section = "model", .name = "attention", .field = SINKSCOPE_FIELD(std::string, model.attention), .allowed = variant_names(), .what = "how logits become weights"},
      {.section = "model", .name = "layers", .field = SINKSCOPE_FIELD(int, model.n_layer), .least = 1, .most = 64, .what = "layers"},
      {.section = "model", .name = "width", .field = SINKSCOPE_FIELD(int, model.d_model), .least = 8, .most = 4096, .what = "numbers of a hidden state"},
      {.section = "model", .name = "heads", .field = SINKSCOPE_FIELD(int, model.n_head), .least = 1, .most = 128, .what = "query heads"},
      {.section = "model", .name = "kv_heads", .field = SINKSCOPE_FIELD(int, model.n_head_kv), .least = 1, .most = 128, .what = "key and value heads; they divide the query heads"},
      {.section = "model", .name = "head_size", .field = SINKSCOPE_FIELD(int, model.d_head), .least = 2, .most = 512, .what = "numbers of a query"},
      {.section = "model", .name = "ff_width", .field = SINKSCOPE_FIELD(int, model.d_ff), .least = 1, .most = 16384, .what = "hidden units of the MLP, or of an expert"},
      {.section = "model", .name = "norm", .field = SINKSCOPE_FIELD(std::string, model.norm), .allowed = {"pre", "post", "sandwich"}, .what = "where RMSNorm stands"},
      {.section = "model", .name = "position", .field = SINKSCOPE_FIELD(std::string, model.position), .allowed = {"rope", "learned", "alibi", "none"}, .what = "how positions are told"},
      {.section = "model", .name = "activation", .field = SINKSCOPE_FIELD(std::string, model.activation), .allowed = {"swiglu", "gelu"}, .what = "of the MLP"},
      {.section = "model", .name = "tied", .field = SINKSCOPE_FIELD(bool, model.tied), .what = "the output uses the embedding's weights"},
      {.section = "model", .name = "qk_norm", .field = SINKSCOPE_FIELD(std::string, model.qk_norm), .allowed = {"none", "before", "behind"}, .what = "RMSNorm of queries and keys before RoPE, as Qwen 3, or behind it, as Hunyuan"},
      {.section = "model", .name = "window", .field = SINKSCOPE_FIELD(int, model.window), .what = "keys that a query sees; 0: all"},
      {.section = "model", .name = "prefix", .field = SINKSCOPE_FIELD(int, model.prefix), .what = "first tokens that see each other both ways"},
      {.section = "model", .name = "experts", .field = SINKSCOPE_FIELD(int, model.n_expert), .most = 64, .what = "experts of a layer; 0: a plain MLP"},
      {.section = "model", .name = "experts_used", .field = SINKSCOPE_FIELD(int, model.n_expert_used), .least = 1, .most = 64, .what = "experts that a token is sent to", .read_with = &kHasExperts},
      {.section = "model", .name = "experts_shared", .field = SINKSCOPE_FIELD(int, model.n_expert_shared), .most = 1, .what = "experts that all tokens are sent to", .read_with = &kHasExperts},
      {.section = "model", .name = "balance", .field = SINKSCOPE_FIELD(double, model.balance), .most = 1, .what = "weight of the router's balance loss", .read_with = &kHasExperts},
      {.section = "model", .name = "diffusion", .field = SINKSCOPE_FIELD(bool, model.diffusion), .what = "masked diffusion in place of the next token"},
      {.section = "model", .name = "rope_base", .field = SINKSCOPE_FIELD(double, model.rope_base), .least = 1, .what = "base of RoPE's frequencies", .read_with = &kHasRope},
      {.section = "model", .name = "clip_gamma", .field = SINKSCOPE_FIELD(double, model.clip_gamma), .least = -10, .most = 0, .what = "of clipped softmax", .read_with = &kClips},
      {.section = "model", .name = "clip_zeta", .field = SINKSCOPE_FIELD(double, model.clip_zeta), .least = 1, .most = 10, .what = "of clipped softmax", .read_with = &kClips},
      {.section = "data", .name = "folder", .field = SINKSCOPE_FIELD(std::string, data.folder), .what = "made by sinkscope-train prepare"},
      {.section = "data", .name = "packing", .field = SINKSCOPE_FIELD(std::string, data.packing), .allowed = packing_names(), .what = "where BOS stands"},
      {.section = "data", .name = "context", .field = SINKSCOPE_FIELD(int, data.context), .least = 8, .most = 65536, .what = "tokens of a context"},
      {.section = "training", .name = "tokens", .field = SINKSCOPE_FIELD(int64_t, training.tokens), .least = 1, .what = "to train on"},
      {.section = "training", .name = "batch", .field = SINKSCOPE_FIELD(int, training.batch), .least = 1, .most = 4096, .what = "contexts that go through the model at once"},
      {.section = "training", .name = "accumulate", .field = SINKSCOPE_FIELD(int, training.accumulate), .least = 1, .most = 4096, .what = "batches of a step"},
      {.section = "training", .name = "rate", .field = SINKSCOPE_FIELD(double, training.rate), .least = 1e-9, .most = 10, .what = "learning rate"},
      {.section = "training", .name = "schedule", .field = SINKSCOPE_FIELD(std::string, training.schedule), .allowed = {"constant", "cosine"}, .what = "of the rate behind warm-up; cosine falls to a tenth"},
      {.section = "training", .name = "warmup", .field = SINKSCOPE_FIELD(int, training.warmup), .what = "steps in which the rate rises"},
      {.section = "training", .name = "weight_decay", .field = SINKSCOPE_FIELD(double, training.weight_decay), .most = 100, .what = "AdamW's, of matrices"},
      {.section = "training", .name = "clip", .field = SINKSCOPE_FIELD(double, training.clip), .what = "largest length of the gradient; 0: any"},
      {.section = "training", .name = "beta1", .field = SINKSCOPE_FIELD(double, training.beta1), .most = 0.999999, .what = "AdamW's"},
      {.section = "training", .name = "beta2", .field = SINKSCOPE_FIELD(double, training.beta2), .most = 0.999999, .what = "AdamW's"},
      {.section = "training", .name = "precision", .field = SINKSCOPE_FIELD(std::string, training.precision), .allowed = {"f32", "bf16"}, .what = "of matrix products"},
      {.section = "training", .name = "seed", .field = SINKSCOPE_FIELD(uint32_t, training.seed), .most = 4294967295.0, .what = "of weights, batches and masks"},
      {.section = "training", .name = "threads", .field = SINKSCOPE_FIELD(int, training.threads), .most = 512, .what = "0: one for each core"},
      {.section = "training", .name = "checkpoint", .field = SINKSCOPE_FIELD(int, training.checkpoint), .least = 1, .what = "steps between checkpoints"},
      {.section = "training", .name = "measurements", .field = SINKSCOPE_FIELD(int, training.measurements), .least = 2, .most = 10000, .what = "of the sinks, evenly over the logarithm of steps"},
      {.section = "training", .name = "probe", .field = SINKSCOPE_FIELD(int, training.probe), .least = 1, .most = 4096, .what = "contexts that are measured"},
      {.section = "training", .name = "exports", .field = SINKSCOPE_FIELD(bool, training.exports), .what = "a GGUF file at each measurement, for sinkscope emergence"},
  };
  return keys;
}

#undef SINKSCOPE_FIELD

// What a field can hold, too.
template <class T>
double most_of(const Key& key) {
  if constexpr (std::is_same_v<T, int>) return std::min(key.most, static_cast<double>(std::numeric_limits<int>::max()));
  else return key.most;
}

bool is_word(const std::string& text, const std::string& word) {
  return word.ends_with(":P") ? text.starts_with(word.substr(0, word.size() - 1)) : text == word;
}

// False: the value is of another kind, or not allowed.
bool put(RunConfig& config, const Key& key, const toml::node& value) {
  return std::visit([&](auto field) {
    auto& to = field(config);
    using T = std::remove_reference_t<decltype(to)>;
    const auto in_range = [&](double x) { return x >= key.least && x <= most_of<T>(key); };
    if constexpr (std::is_same_v<T, bool>) {
      if (!value.is_boolean()) return false;
      to = **value.as_boolean();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!value.is_string()) return false;
      const std::string& text = **value.as_string();
      if (!key.allowed.empty() && std::ranges::none_of(key.allowed, [&](const std::string& word) { return is_word(text, word); })) return false;
      to = text;
    } else if constexpr (std::is_same_v<T, double>) {
      const std::optional<double> x = value.value<double>();
      if (!x || !in_range(*x)) return false;
      to = *x;
    } else {
      if (!value.is_integer() || !in_range(static_cast<double>(**value.as_integer()))) return false;
      to = static_cast<T>(**value.as_integer());
    }
    return true;
  }, key.field);
}

std::string as_text(const toml::node& node) {
  if (const auto* x = node.as_floating_point()) return shortest(**x);
  std::ostringstream text;
  node.visit([&](const auto& n) { text << n; });
  return text.str();
}

std::string value_of(const RunConfig& config, const Key& key) {
  RunConfig copy = config;
  return std::visit([&](auto field) { return as_text(toml::value(field(copy))); }, key.field);
}

const Key* find(std::string_view section, std::string_view name) {
  const auto at = std::ranges::find_if(table(), [&](const Key& k) { return k.section == section && k.name == name; });
  return at == table().end() ? nullptr : &*at;
}

std::string names_of(std::string_view section) {
  std::vector<std::string> names;
  for (const Key& k : table())
    if (k.section == section) names.emplace_back(k.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

// Of "model.heads"; null where there is no such key.
const Key* find(std::string_view name) {
  const size_t dot = name.find('.');
  return dot == std::string::npos ? nullptr : find(name.substr(0, dot), name.substr(dot + 1));
}

constexpr const char* kSections[] = {"model", "data", "training"};

// Where in a sentence a key is named; npos: nowhere. "model.experts" is not in "model.experts_used".
size_t place_of(std::string_view key, std::string_view sentence) {
  for (size_t at = sentence.find(key); at != std::string::npos; at = sentence.find(key, at + 1)) {
    const size_t end = at + key.size();
    if (end == sentence.size() || (sentence[end] != '_' && !std::isalnum(static_cast<unsigned char>(sentence[end])))) return at;
  }
  return std::string::npos;
}

[[noreturn]] void refuse(const std::string& name, const std::map<std::string, int>& lines, const std::string& what) {
  size_t first = std::string::npos;
  std::string where;
  for (const auto& [key, line] : lines)
    if (const size_t at = place_of(key, what); at < first) first = at, where = line > 0 ? fmt::format(", line {}", line) : " and --set";
  throw InputError(fmt::format("{}{}: {}", name, where, what));
}

// What this process may have, bytes.
double memory() {
  const double whole = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  rlimit limit{};
  return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? std::min(whole, static_cast<double>(limit.rlim_cur)) : whole;
}

}  // namespace

std::span<const Key> keys() { return table(); }

std::string allowed(const Key& key) {
  if (!key.allowed.empty()) return fmt::format("use {}", fmt::join(key.allowed, ", "));
  return std::visit([&](auto field) -> std::string {
    using T = std::remove_reference_t<decltype(field(std::declval<RunConfig&>()))>;
    if constexpr (std::is_same_v<T, bool>) return "use true or false";
    else if constexpr (std::is_same_v<T, std::string>) return "use a text in quotes";
    else return fmt::format("use {} from {:g} to {:.10g}", std::is_same_v<T, double> ? "a number" : "a whole number", key.least, most_of<T>(key));
  }, key.field);
}

std::string default_of(const Key& key) { return value_of({}, key); }

std::string shortest(double x) {
  const std::string text = fmt::format("{}", x);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;  // a whole number would be of another kind
}

std::string read_toml(const std::string& path, const char* of) {
  std::ifstream file(path);
  if (!file || std::filesystem::is_directory(path)) throw InputError(fmt::format("cannot read '{}'; give a TOML file of {}", path, of));
  return {std::istreambuf_iterator<char>(file), {}};
}

Parsed parse_run_config(const std::string& text, const std::string& name, std::span<const char* const> others) {
  toml::table file;
  try {
    file = toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    throw InputError(fmt::format("{}, line {}: this is not TOML ({}); write key = value", name, e.source().begin.line, e.description()));
  }
  Parsed parsed;
  RunConfig& config = parsed.config;
  if (const toml::node* preset = file.get("preset")) {
    const std::optional<std::string> wanted = preset->value<std::string>();
    const auto known = std::ranges::find_if(presets(), [&](const Preset& p) { return wanted && *wanted == p.name; });
    if (known == presets().end()) {
      std::vector<const char*> names;
      for (const Preset& p : presets()) names.push_back(p.name);
      throw InputError(fmt::format("{}, line {}: preset {} is unknown; use {}", name, preset->source().begin.line, as_text(*preset), fmt::join(names, ", ")));
    }
    known->apply(config);
  }
  for (const auto& [section, node] : file) {
    if (section == "preset" || std::ranges::find(others, section.str()) != others.end()) continue;
    const toml::table* values = node.as_table();
    if (!values || std::ranges::find(kSections, section.str()) == std::end(kSections))
      throw InputError(fmt::format("{}, line {}: '{}' is no part of a run; use preset, [{}]", name, node.source().begin.line, section.str(), fmt::join(kSections, "], [")));
    for (const auto& [key_name, value] : *values) {
      const Key* key = find(section.str(), key_name.str());
      if (!key)
        throw InputError(fmt::format("{}, line {}: {}.{} is no key; use {}", name, value.source().begin.line, section.str(), key_name.str(), names_of(section.str())));
      if (!put(config, *key, value))
        throw InputError(fmt::format("{}, line {}: {}.{} = {} cannot be; {}", name, value.source().begin.line, section.str(), key_name.str(), as_text(value), allowed(*key)));
      parsed.lines[fmt::format("{}.{}", section.str(), key_name.str())] = static_cast<int>(value.source().begin.line);
    }
  }
  return parsed;
}

Parsed read_run_config(const std::string& path, std::span<const std::string> settings) {
  Parsed parsed = parse_run_config(read_toml(path, "a run"), path);
  for (const std::string& s : settings) {
    const std::string key = s.substr(0, s.find('='));
    set_key(parsed.config, key, s.size() == key.size() ? "" : s.substr(key.size() + 1));
    parsed.lines[key] = 0;
  }
  check(parsed.config, path, parsed.lines);
  return parsed;
}

std::string to_toml(const RunConfig& config) {
  std::string text;
  for (const char* section : kSections) {
    text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section);
    for (const Key& key : table())
      if (key.section == std::string_view(section)) text += fmt::format("{} = {}\n", key.name, value_of(config, key));
  }
  return text;
}

void set_key(RunConfig& config, const std::string& name, const std::string& value) {
  const Key* key = find(name);
  if (!key) throw UsageError(fmt::format("'{}' is no key of a run; use one as in model.attention or training.seed", name));
  toml::table one;
  const bool quoted = std::holds_alternative<std::string& (*)(RunConfig&)>(key->field);
  try {
    one = toml::parse(fmt::format("x = {}", quoted ? "'" + value + "'" : value));
  } catch (const toml::parse_error&) {
    one.insert("x", value);
  }
  if (!put(config, *key, *one.get("x"))) throw UsageError(fmt::format("{} = {} cannot be; {}", name, value, allowed(*key)));
}

void check(const RunConfig& c, const std::string& name, const std::map<std::string, int>& lines) {
  const ModelConfig& m = c.model;
  const auto refuse = [&](const std::string& what) { train::refuse(name, lines, what); };
  if (m.n_head % m.n_head_kv != 0) refuse(fmt::format("model.kv_heads = {} does not divide model.heads = {}; use a divisor", m.n_head_kv, m.n_head));
  if (m.position == "rope" && m.d_head % 2 != 0) refuse(fmt::format("model.head_size = {} is odd, RoPE turns pairs; use an even one", m.d_head));
  if (m.n_expert > 0 && m.n_expert_used > m.n_expert) refuse(fmt::format("model.experts_used = {} is more than model.experts = {}; use fewer", m.n_expert_used, m.n_expert));
  if (m.diffusion && (m.window > 0 || m.prefix > 0)) refuse("model.diffusion sees both ways; use it without model.window and model.prefix");
  if (m.prefix >= c.data.context) refuse(fmt::format("model.prefix = {} leaves nothing of data.context = {} to predict; use a smaller one", m.prefix, c.data.context));
  try {
    check_packing(c.data.packing, c.data.context);
  } catch (const UsageError& e) {
    refuse(fmt::format("data.packing = {} cannot be: {}", c.data.packing, e.what()));
  }
  if (const std::string why = why_not_gguf(m); c.training.exports && !why.empty()) refuse(fmt::format("training.exports = true cannot be: {}; leave it away", why));
  if (c.data.folder.empty()) refuse("data.folder is not given; give a folder that sinkscope-train prepare made");
}

void check_given(std::span<const RunConfig> configs, const std::string& name, const std::map<std::string, int>& lines) {
  for (const auto& [given, line] : lines) {
    const Key& key = *find(given);
    if (key.read_with && std::ranges::none_of(configs, [&](const RunConfig& c) { return key.read_with->holds(c) || value_of(c, key) == default_of(key); }))
      refuse(name, lines, fmt::format("{} = {} has no effect without {}; leave it away, or set that too", given, value_of(configs[0], key), key.read_with->what));
  }
}

std::unique_ptr<TokenFile> open_data(const RunConfig& c, const std::string& name, const std::map<std::string, int>& lines) {
  try {
    return std::make_unique<TokenFile>(c.data.folder);
  } catch (const InputError& e) {
    refuse(name, lines, fmt::format("data.folder = {} cannot be: {}", c.data.folder, e.what()));
  }
}

void check_data(const RunConfig& c, const TokenFile& data, const std::string& name, const std::map<std::string, int>& lines) {
  for (const auto& [part, tokens] : {std::pair("training", data.training()), std::pair("validation", data.validation())})
    if (tokens.size() <= static_cast<size_t>(c.data.context))
      refuse(name, lines, fmt::format("data.context = {} is too long for the {} part of data.folder = {}, which has {} tokens; use less than these or prepare more text", c.data.context, part, c.data.folder, tokens.size()));
  // At least the weights of attention stay until a step's way back.
  const double bytes = 4.0 * c.model.n_layer * c.training.batch * c.model.n_head * c.data.context * c.data.context;
  if (bytes > memory())
    refuse(name, lines, fmt::format("data.context = {} with training.batch = {} needs more than {:.1f} GB for attention's weights, there are {:.1f}; use a smaller context, batch or model", c.data.context, c.training.batch, bytes / 1e9, memory() / 1e9));
}

namespace {

void size(RunConfig& c, int n_layer, int d_model, int n_head, int d_ff) {
  c.model.n_layer = n_layer, c.model.d_model = d_model, c.model.n_head = c.model.n_head_kv = n_head, c.model.d_ff = d_ff;
}

constexpr Preset kPresets[] = {
    {"emergence", "sinks emerge within 8M tokens", [](RunConfig& c) { size(c, 4, 128, 2, 352); }},
    {"trial", "the smallest, for trying things out", [](RunConfig& c) { size(c, 5, 64, 1, 176); }},
    {"peaks", "residual peaks over many layers", [](RunConfig& c) { size(c, 12, 128, 2, 352); }},
    {"heads", "more heads: which of them sink", [](RunConfig& c) { size(c, 4, 256, 4, 704); }},
    {"scale", "the largest: what holds at ten times the size of emergence", [](RunConfig& c) { size(c, 7, 384, 6, 1024); }},
    {"experts", "a mixture of 8 experts and one shared, as in Hunyuan", [](RunConfig& c) {
       size(c, 4, 128, 2, 128);
       c.model.n_expert = 8, c.model.n_expert_used = 2, c.model.n_expert_shared = 1, c.model.qk_norm = "behind";
     }},
    {"diffusion", "masked diffusion, as in LLaDA", [](RunConfig& c) { size(c, 4, 128, 2, 352), c.model.diffusion = true; }},
};

}  // namespace

std::span<const Preset> presets() { return kPresets; }

}  // namespace sinkscope::train
