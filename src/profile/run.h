// The steps of a profile, for those that look at more while its prompts run.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/places.h"
#include "measure/recorder.h"
#include "profile/prompts.h"
#include "session/model_json.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/profile.h"

namespace sinkscope::profile_run {

class Companion {
 public:
  // Of the whole run.
  struct Size {
    const ModelInfo& model;
    int n_prompt, n_token;  // n_token: of the longest
  };

  virtual ~Companion() = default;
  // Options and files that it writes itself: none may be another file of the command.
  virtual std::vector<io::Place> files() const = 0;
  // Before the first prompt: may add probes behind the recorder, and hooks to the session. leave() takes the hooks away.
  virtual void join(const Size& size, Session& session, const measure::Recorder& recorder, std::vector<Probe*>& probes) = 0;
  virtual void leave(Session& session) = 0;
  // Before and behind each prompt.
  virtual void start(const Prompt& prompt) = 0;
  virtual void finish(const Prompt& prompt) = 0;
  // When the profile stands, before any file appears.
  virtual void conclude(const Model& model, Session& session, const std::vector<Prompt>& prompts, const Profile& profile) = 0;
  // What joins the profile's JSON as "explain"; and files, written, that appear together with the profile's.
  virtual session::Json json() const = 0;
  virtual std::vector<AtomicFile*> written() = 0;
};

// What reports of all commands that run prompts have in common.
RunInfo run_info(const PromptOptions& options, const std::vector<Prompt>& prompts, const Model& model, const Session& session, double seconds);
session::Json run_json(const RunInfo& run);
session::Json interval_json(const std::optional<Interval>& interval);
session::Json profile_json(const Profile& profile);

// profile(), with a companion or null.
Profile run(const ProfileOptions& options, const Progress& progress, Companion* companion);

}  // namespace sinkscope::profile_run
