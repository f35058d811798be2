#include "sinkscope/stream.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "io/places.h"
#include "io/sha256.h"
#include "policy/budget.h"
#include "policy/map_files.h"
#include "policy/policy.h"
#include "policy/protect.h"
#include "session/check.h"
#include "session/sampler.h"
#include "session/text.h"
#include "session/windows.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "sinkscope/models.h"
#include "stream/stream_file.h"

namespace sinkscope {
namespace {

using stream_run::SavedStream;

policy::MapFiles map_files(const StreamOptions& o) { return {o.sink_map, o.duo_heads}; }

void check(const StreamOptions& o) {
  using session::at_least, session::between;
  between("--temperature", o.temperature, 0.0f, 100.0f);
  between("--top-p", o.top_p, 0.0f, 1.0f);
  between("--min-p", o.min_p, 0.0f, 1.0f);
  at_least("--tokens", o.tokens, 0);
  at_least("--threads", o.threads, 0);
  at_least("--chunk", o.chunk, 1);
  if (o.chat && !o.text.empty()) throw UsageError("both --chat and a text are given; give one of them");
  policy::kind(o.policy);
  map_files(o).check({&o.policy, 1});
  policy::check_protects(o.protect, {&o.policy, 1});
  if (!o.kv_budget.empty()) policy::bytes_of(o.kv_budget);
}

// The model's hash takes a while: only where a file is to be of this model.
policy::Subject subject_of(const StreamOptions& o, const Model& model) {
  const bool named = !o.save.empty() || !o.load.empty() || !o.sink_map.empty() || !policy::sink_map_of(o.protect).empty();
  return {named ? io::sha256_of_file(model.info().file) : "", session::wants_bos(o.bos, model.info())};
}

MemoryOptions memory_options(const StreamOptions& o, const policy::Subject& subject, const Model& model) {
  return {.policy = o.policy, .budget = o.policy == "full" ? 0 : o.budget, .budget_bytes = o.kv_budget.empty() ? 0 : policy::bytes_of(o.kv_budget),
                       .sinks = o.sinks, .positions = o.positions, .protect = policy::protected_positions(o.protect, o.kv_type, subject),
                       .sink_map = map_files(o).read(o.policy, subject, windows(model.impl()), model.info().n_head_kv)};
}

// What a saved stream can only go on with: options as they stand in a command, sink maps by what is in them.
std::vector<std::pair<std::string, std::string>> settings_of(const StreamOptions& o) {
  std::vector<std::pair<std::string, std::string>> settings = {{"--policy", o.policy}, {"--positions", o.positions}, {"--kv-type", o.kv_type}, {"--bos", o.bos},
                                                               {"--sinks", std::to_string(o.sinks)}, {"--temperature", fmt::format("{}", o.temperature)},
                                                               {"--top-p", fmt::format("{}", o.top_p)}, {"--min-p", fmt::format("{}", o.min_p)},
                                                               {"--seed", std::to_string(o.seed)}};
  if (o.chat) settings.emplace_back("--chat", "");
  if (o.kv_budget.empty()) settings.emplace_back("--budget", std::to_string(o.budget));
  else settings.emplace_back("--kv-budget", o.kv_budget);
  const std::string map = policy::sink_map_of(o.protect);
  settings.emplace_back("--protect", map.empty() ? o.protect : "sinkmap:FILE of SHA-256 " + io::sha256_of_file(map));
  if (!o.sink_map.empty()) settings.emplace_back("--sinkmap", "FILE of SHA-256 " + io::sha256_of_file(o.sink_map));
  if (!o.duo_heads.empty()) settings.emplace_back("--duo-heads", "FILE of SHA-256 " + io::sha256_of_file(o.duo_heads));
  return settings;
}

bool keeps_first(const MemoryOptions& memory) {
  const policy::Kind& kind = policy::kind(memory.policy);
  return kind.protects && (!kind.has_sinks || memory.sinks > 0 || (!memory.protect.empty() && memory.protect[0] == 0));
}

// Models' templates leave away what surrounds a message.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \n\r\t";
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string_view::npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

class Stream {
 public:
  Stream(const StreamOptions& o, const StreamEvents& events)
      : o_(o), events_(events), model_(o.model), subject_(subject_of(o, model_)), memory_(memory_options(o, subject_, model_)),
        session_(model_, {.n_context = 0, .n_batch = o.chunk, .n_thread = o.threads, .kv_type = o.kv_type, .isa = o.isa,
                          .attention = Attention::sinkscope, .all_logits = false, .blas = !o.no_blas, .batch_invariant = false,
                          .memory = memory_}),
        sampler_({.temperature = o.temperature, .top_p = o.top_p, .min_p = o.min_p, .seed = o.seed}) {
    for (int t = 0; t < model_.info().n_vocab; ++t)
      if (model_.is_end(t)) ends_.push_back(t);
  }

  // `save`: where the stream goes in the end, or null.
  StreamState run(AtomicFile* save) {
    save_ = save;
    for (const std::string& sentence : session_.notes()) note(sentence);
    if (!o_.load.empty()) take_up();
    else if (subject_.bos) pending_ = {model_.info().bos};
    if (!keeps_first(memory_)) note("the stream will lose its attention sink, which is its first token: no first row is kept; give --policy streaming --sinks 4");
    if (o_.chat) chat();
    else go_on();
    if (save_) stream_run::write(*save_, {subject_.model_sha256, settings_of(o_), pending_, messages_, session_.save()});
    return state();
  }

 private:
  void take_up() {
    SavedStream saved = stream_run::read(o_.load);
    if (saved.model_sha256 != subject_.model_sha256) throw InputError(fmt::format("'{}' was saved with another model; give that model, or another file", o_.load));
    const auto now = settings_of(o_);
    for (const auto& [option, value] : saved.settings)
      if (std::ranges::find(now, std::pair(option, value)) == now.end())
        throw InputError(fmt::format("'{}' was saved with {}{}{}; give that, or another file", o_.load, option, value.empty() ? "" : " ", value));
    for (const auto& [option, value] : now)
      if (std::ranges::find(saved.settings, option, &std::pair<std::string, std::string>::first) == saved.settings.end())
        throw InputError(fmt::format("'{}' was saved without {}; leave it away, or give another file", o_.load, option));
    session_.load(saved.memory);
    messages_ = std::move(saved.messages);
    pending_ = saved.pending;
  }

  void wait(const std::vector<int>& tokens) { pending_.insert(pending_.end(), tokens.begin(), tokens.end()); }

  void go_on() {
    if (!o_.text.empty()) wait(model_.tokenize(session::read_text(o_.text)));
    if (pending_.empty()) throw InputError(fmt::format("there is nothing to go on from{}; give a text, or --bos always", o_.text.empty() ? "" : ": " + session::named(o_.text) + " is empty"));
    generate(nullptr);
  }

  // Turn by turn. What the template makes of all messages grows: the new part is run.
  void chat() {
    while (!stopped_) {
      const std::optional<std::string> message = events_.message ? events_.message() : std::nullopt;
      if (!message) return;
      const size_t known = known_text();
      messages_.push_back({"user", session::as_utf8(*message)});
      const std::string text = model_.chat_text(messages_, true);
      wait(model_.tokenize(std::string_view(text).substr(std::min(known, text.size())), /*marks=*/true));
      std::string& answer = messages_.emplace_back(ChatMessage{"assistant", ""}).content;
      generate(&answer);
    }
  }

  // How much of the chat's text the model has seen, pending tokens included: up to the end of the last answer's words. What ends
  // an answer is the template's, in place of the model's own.
  size_t known_text() {
    if (messages_.empty()) return 0;
    if (!pending_.empty() && model_.is_end(pending_.back())) pending_.pop_back();
    const std::span<const ChatMessage> before(messages_.data(), messages_.size() - 1);
    const std::string_view answer = trimmed(messages_.back().content);
    const size_t begin = model_.chat_text(before, true).size(), at = model_.chat_text(messages_, false).find(answer, begin);
    return (at == std::string::npos ? begin : at) + answer.size();
  }

  // Runs what is pending, unless it is stopped.
  void read() {
    const std::vector<int> tokens = std::exchange(pending_, {});
    for (size_t first = 0, n; first < tokens.size(); first += n) {
      n_unread_ = static_cast<int64_t>(tokens.size() - first);
      if (events_.reading && !events_.reading(state())) {
        stopped_ = true;
        pending_.assign(tokens.begin() + static_cast<ptrdiff_t>(first), tokens.end());
        break;
      }
      n = std::min(tokens.size() - first, static_cast<size_t>(o_.chunk));
      session_.append(std::span(tokens).subspan(first, n), first + n == tokens.size() ? &logits_ : nullptr);
    }
    n_unread_ = 0;
  }

  // Runs what is pending, then what is sampled, one by one. The last one is shown but not run: it is pending. An answer has an
  // end and is kept; otherwise the text goes on, and none of it is.
  void generate(std::string* answer) {
    read();
    std::string shown;
    for (int n = 0; !stopped_ && (o_.tokens == 0 || n < o_.tokens); ++n) {
      const auto start = std::chrono::steady_clock::now();
      if (!pending_.empty()) session_.append(pending_, &logits_), ++n_run_;
      if (!answer)
        for (const int t : ends_) logits_[t] = -std::numeric_limits<float>::infinity();
      const int next = sampler_.pick(logits_, session_.n_past());
      pending_ = {next};
      seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      ++n_generated_;
      if (answer && model_.is_end(next)) break;
      shown += model_.is_control(next) ? "" : model_.token_text(next);
      const size_t whole = shown.size() - session::unfinished(shown);
      if (events_.text && !events_.text(std::string_view(shown).substr(0, whole), state())) stopped_ = true;
      if (answer) answer->append(shown, 0, whole);
      shown.erase(0, whole);
    }
    if (answer && !stopped_ && events_.text) events_.text("\n", state());
  }

  StreamState state() const {
    return {.position = session_.n_past() + static_cast<int64_t>(pending_.size()), .n_unread = n_unread_, .n_generated = n_generated_, .rows = session_.memory_rows(),
            .kv_bytes = static_cast<int64_t>(session_.memory_bytes()), .tokens_per_second = n_run_ > 0 ? static_cast<double>(n_run_) / seconds_ : 0};
  }

  void note(const std::string& sentence) const {
    if (events_.note) events_.note(sentence);
  }

  const StreamOptions& o_;
  const StreamEvents& events_;
  Model model_;
  policy::Subject subject_;
  MemoryOptions memory_;
  Session session_;
  session::Sampler sampler_;
  std::vector<int> ends_;  // tokens that end a text: never in a stream that has no end
  AtomicFile* save_ = nullptr;
  std::vector<float> logits_;
  std::vector<ChatMessage> messages_;
  std::vector<int> pending_;  // tokens that are not run yet, the last of which was shown
  bool stopped_ = false;
  int64_t n_unread_ = 0, n_generated_ = 0, n_run_ = 0;  // a turn's first token comes from the prompt's logits, without a run of its own
  double seconds_ = 0;
};

}  // namespace

StreamState stream(const StreamOptions& options, const StreamEvents& events) {
  check(options);
  io::check_places({options.text, resolve_model(options.model), options.sink_map, options.duo_heads, policy::sink_map_of(options.protect)}, {{"--save", options.save}});
  std::optional<AtomicFile> save;
  if (!options.save.empty()) save.emplace(options.save);
  return Stream(options, events).run(save ? &*save : nullptr);
}

}  // namespace sinkscope
