#include "sinkscope/stream.h"

#include <chrono>
#include <limits>

#include <fmt/format.h>

#include "io/sha256.h"
#include "policy/budget.h"
#include "policy/policy.h"
#include "policy/protect.h"
#include "session/sampler.h"
#include "session/text.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "stream/stream_file.h"

namespace sinkscope {
namespace {

using stream_run::SavedStream;

void check(const StreamOptions& o) {
  const auto between = [](const char* option, float value, float low, float high) {
    if (!(value >= low && value <= high)) throw UsageError(fmt::format("{} {} is not between {} and {}; give a number that is", option, value, low, high));
  };
  between("--temperature", o.temperature, 0, 100);
  between("--top-p", o.top_p, 0, 1);
  between("--min-p", o.min_p, 0, 1);
  if (o.tokens < 0) throw UsageError(fmt::format("--tokens {} is too small; use 0 or more", o.tokens));
  if (o.threads < 0) throw UsageError(fmt::format("--threads {} is too small; use 0 or more", o.threads));
  if (o.chunk < 1) throw UsageError(fmt::format("--chunk {} is too small; use 1 or more", o.chunk));
  if (o.bos != "auto" && o.bos != "always" && o.bos != "never") throw UsageError(fmt::format("--bos '{}' is unknown; use auto or always or never", o.bos));
  if (o.chat && !o.text.empty()) throw UsageError("both --chat and a text are given; give one of them");
  policy::kind(o.policy);
  if (!o.kv_budget.empty()) policy::bytes_of(o.kv_budget);
}

// The model's hash takes a while: only where a file is to be of this model.
policy::Subject subject_of(const StreamOptions& o, const Model& model) {
  const bool named = !o.save.empty() || !o.load.empty() || !o.sink_map.empty() || !policy::sink_map_of(o.protect).empty();
  return {named ? io::sha256_of_file(model.info().file) : "", session::wants_bos(o.bos, model.info())};
}

MemoryOptions memory_options(const StreamOptions& o, const policy::Subject& subject) {
  MemoryOptions memory{.policy = o.policy, .budget = o.policy == "full" ? 0 : o.budget, .budget_bytes = o.kv_budget.empty() ? 0 : policy::bytes_of(o.kv_budget),
                       .sinks = o.sinks, .positions = o.positions, .protect = policy::protected_positions(o.protect, o.kv_type, subject), .sink_map = nullptr};
  if (policy::kind(o.policy).needs_map && !o.sink_map.empty()) memory.sink_map = std::make_shared<const policy::SinkMap>(policy::read_calibrated_map(o.sink_map, subject));
  return memory;
}

// The bytes at the end that begin a UTF-8 character and do not end it.
size_t unfinished(std::string_view text) {
  for (size_t n = 1; n <= std::min<size_t>(3, text.size()); ++n) {
    const auto c = static_cast<unsigned char>(text[text.size() - n]);
    if ((c & 0xC0) == 0x80) continue;
    const size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
    return length > n ? n : 0;
  }
  return 0;
}

class Stream {
 public:
  Stream(const StreamOptions& o, const StreamEvents& events)
      : o_(o), events_(events), model_(o.model), subject_(subject_of(o, model_)), memory_(memory_options(o, subject_)),
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
    else if (subject_.bos) pending_ = model_.info().bos;
    if (!subject_.bos && o_.load.empty() && (o_.policy == "window" || (o_.policy == "streaming" && o_.sinks == 0 && memory_.protect.empty())))
      note("the stream will lose its attention sink: there is no BOS, and no first row is kept; give --sinks 4");
    if (o_.chat) chat();
    else go_on();
    if (save_) stream_run::write(*save_, {subject_.model_sha256, o_.policy, o_.positions, pending_, messages_, session_.save()});
    return state();
  }

 private:
  void take_up() {
    SavedStream saved = stream_run::read(o_.load);
    const auto same = [&](const char* what, const std::string& then, const std::string& now, const std::string& give) {
      if (then != now) throw InputError(fmt::format("'{}' was saved with another {}; give {}, or another file", o_.load, what, give));
    };
    same("model", saved.model_sha256, subject_.model_sha256, "that model");
    same("policy", saved.policy, o_.policy, "--policy " + saved.policy);
    same("mode of positions", saved.positions, o_.positions, "--positions " + saved.positions);
    session_.load(saved.memory);
    messages_ = std::move(saved.messages);
    pending_ = saved.pending;
  }

  // The token that was shown and not run yet.
  std::vector<int> pending() const { return pending_ < 0 ? std::vector<int>() : std::vector<int>{pending_}; }

  void go_on() {
    std::vector<int> tokens = pending();
    if (!o_.text.empty()) {
      const std::vector<int> text = model_.tokenize(session::read_text(o_.text));
      tokens.insert(tokens.end(), text.begin(), text.end());
    }
    if (tokens.empty()) throw InputError("there is nothing to go on from; give a text, or --bos always");
    generate(tokens, /*until_end=*/false);
  }

  // Turn by turn. What the template makes of all messages grows: the new part is run.
  void chat() {
    while (!stopped_) {
      const std::optional<std::string> message = events_.message ? events_.message() : std::nullopt;
      if (!message) return;
      const size_t known = known_text();
      messages_.push_back({"user", session::as_utf8(*message)});
      std::vector<int> tokens = pending();
      const std::string text = model_.chat_text(messages_, true);
      const std::vector<int> turn = model_.tokenize(std::string_view(text).substr(std::min(known, text.size())), /*marks=*/true);
      tokens.insert(tokens.end(), turn.begin(), turn.end());
      messages_.push_back({"assistant", generate(tokens, /*until_end=*/true)});
    }
  }

  // How much of the chat's text the model has seen, the pending token included. An answer that was cut has no end yet.
  size_t known_text() const {
    if (messages_.empty()) return 0;
    if (model_.is_end(pending_)) return model_.chat_text(messages_, false).size();
    const std::span<const ChatMessage> before(messages_.data(), messages_.size() - 1);
    return model_.chat_text(before, true).size() + messages_.back().content.size();
  }

  // Runs the tokens, then what is sampled, one by one. The last one is shown but not run: it is pending.
  std::string generate(std::span<const int> tokens, bool until_end) {
    pending_ = -1;
    session_.append(tokens, &logits_);
    std::string all, shown;
    for (int n = 0; !stopped_ && (o_.tokens == 0 || n < o_.tokens); ++n) {
      const auto start = std::chrono::steady_clock::now();
      if (pending_ >= 0) session_.append(std::span(&pending_, 1), &logits_), ++n_run_;
      if (!until_end)
        for (const int t : ends_) logits_[t] = -std::numeric_limits<float>::infinity();
      pending_ = sampler_.pick(logits_, session_.n_past());
      seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      ++n_generated_;
      if (until_end && model_.is_end(pending_)) break;
      shown += model_.is_control(pending_) ? "" : model_.token_text(pending_);
      const size_t whole = shown.size() - unfinished(shown);
      if (events_.text && !events_.text(std::string_view(shown).substr(0, whole), state())) stopped_ = true;
      all.append(shown, 0, whole);
      shown.erase(0, whole);
    }
    if (until_end && !stopped_ && events_.text) events_.text("\n", state());
    return all;
  }

  StreamState state() const {
    return {.position = session_.n_past() + (pending_ >= 0), .n_generated = n_generated_, .rows = session_.memory_rows(),
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
  int pending_ = -1;
  bool stopped_ = false;
  int64_t n_generated_ = 0, n_run_ = 0;  // a turn's first token comes from the prompt's logits, without a run of its own
  double seconds_ = 0;
};

}  // namespace

StreamState stream(const StreamOptions& options, const StreamEvents& events) {
  check(options);
  std::optional<AtomicFile> save;
  if (!options.save.empty()) save.emplace(options.save);
  return Stream(options, events).run(save ? &*save : nullptr);
}

}  // namespace sinkscope
