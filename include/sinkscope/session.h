// A model ready to run: text in, tokens through llama.cpp, attention past the probes, logits out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sinkscope/hooks.h"
#include "sinkscope/probe.h"

namespace sinkscope {

namespace backend {
class CallHook;
}
namespace policy {
class Policy;
struct SinkMap;
}
namespace cache {
class Memory;
}

struct ModelInfo {
  std::string file;          // path
  std::string architecture;  // GGUF's general.architecture
  std::string name;          // GGUF's general.name, else the file's
  std::string file_type;     // quantisation, as llama.cpp names it
  std::string attention;     // sinkscope.attention.kind (docs/training.md): off-by-one, sink-logits, kv-bias, sigmoid; else softmax
  int n_layer = 0;
  int n_head = 0, n_head_kv = 0;  // the largest of any layer
  int n_embd = 0, n_vocab = 0;
  int n_expert = 0;          // of a layer; 0: no mixture of experts
  int n_context_train = 0;
  bool adds_bos = false;     // the tokenizer puts BOS before a text, encoders' [CLS] too
  int bos = -1;              // token, -1: the vocabulary has none
  int closing = -1;          // token that the tokenizer puts behind a text, as encoders' [SEP]; -1: none
  bool is_diffusion = false; // tokens see each other both ways, and masks become words
  int mask = -1;             // token, -1: the vocabulary has none
  bool shifts_logits = false;  // of diffusion models: logits at a position are of the next token
  bool has_cross_attention = false;  // an encoder and a decoder, as T5
};

struct ChatMessage {
  std::string role, content;  // system, user or assistant
};

// Weights and vocabulary of one GGUF file. Any number of sessions may share it.
class Model {
 public:
  // `path`: a GGUF file, or a name of scripts/fetch-model. Throws InputError where the file is missing, no GGUF,
  // damaged, or llama.cpp cannot run it.
  explicit Model(const std::string& path, int n_gpu_layer = 0);
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  const ModelInfo& info() const;
  // Without BOS. `marks`: names of control tokens in the text are those tokens, else they are text. Throws InputError
  // where the file carries no tokenizer.
  std::vector<int> tokenize(std::string_view text, bool marks = false) const;
  // The messages by the model's chat template; `reply`: and the start of an answer. Throws InputError where it has none
  // that llama.cpp knows.
  std::string chat_text(std::span<const ChatMessage> messages, bool reply) const;
  // Ends a text or a turn.
  bool is_end(int token) const;
  // As it stands in text; control tokens by their name.
  std::string token_text(int token) const;
  // Of tokens that follow each other: a character whose bytes are spread over several stands in the first of them.
  std::vector<std::string> token_texts(std::span<const int> tokens) const;
  // No word of text but a mark: BOS, end of turn, padding.
  bool is_control(int token) const;

  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Who computes attention.
enum class Attention {
  sinkscope,    // our device: probes see it
  llama_flash,  // llama.cpp's fused operation
  llama_plain,  // llama.cpp without flash attention: the oracle of our tests
};

// KV memory of our own: llama.cpp's cache holds one batch, what stays after it is the policy's choice.
struct MemoryOptions {
  std::string policy = "full";      // a name of docs/streaming.md
  int budget = 0;                   // rows of each KV head, sinks and the batch included; 0: no bound
  int64_t budget_bytes = 0;         // in place of budget: all that is allocated for the memory
  int sinks = 4;                    // of policy streaming: first rows that it never drops
  std::string positions = "auto";   // cache: kept rows stand side by side (StreamingLLM); gaps: where they were; auto: the policy's own
  std::vector<int32_t> protect = {};  // positions whose rows no policy but window drops, in order
  std::shared_ptr<const policy::SinkMap> sink_map = {};  // of policies sinkmap and duo. For the library's own use
};

struct SessionOptions {
  int n_context = 512;           // tokens of the longest prompt
  int n_batch = 512;             // tokens that go through the graph at once
  int n_thread = 0;              // 0: one for each core
  std::string kv_type = "f16";   // of keys and values in llama.cpp's cache: any type that it takes
  std::string isa = "auto";      // instruction set of the attention kernel
  Attention attention = Attention::sinkscope;
  bool all_logits = false;       // run() and append() will be asked for logits
  bool tensors = false;          // hook_tensors() will be called
  bool blas = true;              // matrix products by OpenBLAS, where it computes rightly
  // Long and short batches are computed in the same way, so that results do not depend on how a prompt is cut, but for
  // rounding. Without, it is faster: few tokens have an attention kernel of their own, and OpenBLAS multiplies only
  // where llama.cpp is slower.
  bool batch_invariant = true;
  // Then n_context bounds nothing, and kv_type is one of f32, f16, q8c, q4c, q8_0, q4_0.
  std::optional<MemoryOptions> memory = {};
};

// What a session of SessionOptions::memory remembered when it was forked. Copies, and what sessions go on from it, share its rows by
// reference until they change; what nobody holds any more is freed.
class Sequence {
 public:
  int64_t n_past() const;

 private:
  friend class Session;
  std::shared_ptr<const cache::Memory> memory_;
};

class Session {
 public:
  Session(const Model& model, const SessionOptions& options);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  // Who is shown the attention of later runs; they must outlive them.
  void watch(std::vector<Probe*> probes);

  // Who is shown tensors of later runs, and may change them; they must outlive them.
  void hook_tensors(std::vector<TensorHook*> hooks);

  // Runs one prompt from an empty memory, cell k of the cache being position k. `progress` is told the tokens done.
  // `logits` is given those of every token, [n_token, n_vocab], with SessionOptions::all_logits, else those of the last.
  // Throws InputError for tokens outside the vocabulary or more of them than n_context.
  void run(std::span<const int> tokens, std::vector<float>* logits = nullptr,
           const std::function<void(int n_done)>& progress = {});

  // The same behind what is in the memory already: position and cell go on counting. Needs a model with a memory
  // (InputError); after an exception only run() makes sense.
  void append(std::span<const int> tokens, std::vector<float>* logits = nullptr,
              const std::function<void(int n_done)>& progress = {});

  // Who stands before and behind attention. For the library's own use.
  void hook_attention(std::vector<backend::CallHook*> hooks);

  // Tokens are remembered from call to call. False: encoders and diffusion models, whose tokens see each other both ways.
  bool has_memory() const;
  // In place of the memory's policy, before run(). For the library's own use.
  void keep_by(std::shared_ptr<const policy::Policy> policy);
  // The memory of SessionOptions::memory as bytes, and back: what follows is then the same. load() throws InputError for
  // bytes that are no memory of such a session.
  std::vector<uint8_t> save() const;
  void load(std::span<const uint8_t> bytes);
  // Several sequences in one session: fork() what is remembered, go_on() from any fork. Of a session of the same model and options.
  Sequence fork() const;
  void go_on(const Sequence& sequence);
  // Tokens that the memory has seen.
  int64_t n_past() const;
  // What SessionOptions::memory holds now: bytes allocated, and rows by KV head, mean over all of them.
  size_t memory_bytes() const;
  double memory_rows() const;
  // Rows that each KV head may have, 0: as many as there are. From budget_bytes it follows after the first batch.
  int memory_budget() const;
  int n_thread() const;
  const char* isa() const;
  // Attention operations that the device has computed so far.
  int64_t n_operation() const;
  // Why it left some to llama.cpp, one reason each.
  const std::vector<std::string>& refused() const;
  // What a user should know of this machine, one sentence each: BLAS that computes wrongly.
  const std::vector<std::string>& notes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Throws UsageError where llama.cpp's cache cannot hold such keys and values.
void check_kv_type(const std::string& name);

// Called with a sentence when llama.cpp gives up (a failed assertion, an error it cannot return) just before it ends the
// process; a program may end it in its own way there.
void on_fatal(void (*handler)(const char* sentence));

}  // namespace sinkscope
