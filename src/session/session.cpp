#include "sinkscope/session.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ggml.h>
#include <ggml-backend.h>
#include <llama.h>

#include "backend/device.h"
#include "cache/saved.h"
#include "policy/budget.h"
#include "policy/policy.h"
#include "session/attention_kind.h"
#include "session/blas_check.h"
#include "session/llama_log.h"
#include "session/model.h"
#include "session/output_projection.h"
#include "session/windows.h"
#include "session/registry_mutex.h"
#include "session/tensors.h"
#include "sinkscope/error.h"

namespace sinkscope {
namespace {

class WithoutBlas {
 public:
  explicit WithoutBlas(bool active) : blas_(active ? ggml_backend_reg_by_name("BLAS") : nullptr) {
    if (blas_) ggml_backend_unload(blas_);
  }
  ~WithoutBlas() {
    if (blas_) ggml_backend_register(blas_);
  }
  WithoutBlas(const WithoutBlas&) = delete;
  WithoutBlas& operator=(const WithoutBlas&) = delete;

 private:
  ggml_backend_reg_t blas_;
};

ggml_type kv_type_of(const std::string& name) {
  constexpr ggml_type kTypes[] = {GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0,  GGML_TYPE_Q4_0,
                                  GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_IQ4_NL};
  std::vector<std::string> names;
  for (const ggml_type type : kTypes) {
    if (name == ggml_type_name(type)) return type;
    names.push_back(ggml_type_name(type));
  }
  throw UsageError(fmt::format("--kv-type '{}' is not a type of llama.cpp's cache; use one of: {}", name, fmt::join(names, ", ")));
}

int thread_count(int wanted) {
  return wanted > 0 ? wanted : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

struct Session::Impl {
  const Model::Impl* model;
  SessionOptions options;
  std::shared_ptr<backend::Attachment> attachment;  // null where llama.cpp computes attention
  std::unique_ptr<llama_context, decltype(&llama_free)> context{nullptr, &llama_free};
  std::shared_ptr<const policy::Policy> policy;  // of owned memory
  int budget_rows = 0;                     // its budget, where it was given in bytes
  std::vector<std::string> notes;
  session::Tensors tensors;
  int n_past = 0;  // tokens in the memory

  enum class Logits { none, last, all };  // of a batch's tokens

  backend::OwnedMemory* owned() const { return attachment ? attachment->owned.get() : nullptr; }
  int batch_size() const { return options.memory ? options.n_batch : std::clamp(options.n_batch, 1, options.n_context); }

  void make_context() {
    const ModelInfo& info = model->info;
    // What owned memory rounds comes to it unrounded.
    const ggml_type type = owned() ? GGML_TYPE_F32 : kv_type_of(options.kv_type);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = options.memory ? options.n_batch : options.n_context;
    params.n_batch = params.n_ubatch = batch_size();
    params.n_outputs_max = options.all_logits || options.tensors ? 0 : 1;
    params.n_threads = params.n_threads_batch = options.n_thread;
    params.flash_attn_type = options.attention == Attention::llama_plain ? LLAMA_FLASH_ATTN_TYPE_DISABLED
                                                                         : LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = type;
    params.type_v = type;
    params.offload_kqv = false;  // keys, values and attention on the host, where the device is
    params.swa_full = true;      // cell index = position in layers with a sliding window too
    params.no_perf = true;
    if (options.tensors) params.cb_eval = session::Tensors::callback, params.cb_eval_user_data = &tensors;
    const auto create = [&] {
      const std::lock_guard lock(session::registry_mutex());
      session::clear_llama_log();
      // Where attention is ours, so are the products.
      const bool sound = session::blas_failure().empty();
      const bool blas = options.blas && sound;
      if (attachment)
        attachment->products = !blas                     ? backend::Products::none
                               : options.batch_invariant ? backend::Products::every
                                                         : backend::Products::where_faster;
      const WithoutBlas without(attachment || !blas);
      const backend::AttachScope scope(attachment);
      context.reset(llama_init_from_model(model->llama.get(), params));
      if (!context)
        throw InputError(fmt::format("llama.cpp cannot make a context of {} tokens for '{}' ({}); give a smaller "
                                     "--length, --context or another --kv-type", options.n_context, info.file,
                                     session::first_llama_error()));
    };
    create();
    // Encoders and diffusion models remember nothing: all tokens must go through the graph at once.
    if (!llama_get_memory(context.get())) {
      if (options.memory)
        throw InputError(fmt::format("'{}' has no memory, its tokens see each other both ways; use {}", info.file, info.is_diffusion ? "sinkscope denoise" : "it without a policy"));
      params.n_batch = params.n_ubatch = options.n_batch = options.n_context;
      params.n_outputs_max = 0;
      create();
    }
  }

  static constexpr int kUnknown = 1 << 30;

  policy::Options policy_options(int budget) const {
    return {.budget = budget, .n_batch = options.n_batch, .sinks = options.memory->sinks, .protect = options.memory->protect, .output_projection = session::output_projection(*model), .map = options.memory->sink_map};
  }

  // Rows that are not rounded to less than F16: those that a policy never drops.
  std::vector<int32_t> exact_positions() const {
    std::vector<int32_t> exact = options.memory->protect;
    for (int i = 0; i < options.memory->sinks && policy::kind(options.memory->policy).has_sinks; ++i) exact.push_back(i);
    if (const auto& map = options.memory->sink_map) exact.insert(exact.end(), map->positions.begin(), map->positions.end());
    std::ranges::sort(exact);
    return exact;
  }

  void take_budget() {
    const MemoryOptions& o = *options.memory;
    if (o.budget_bytes == 0 || budget_rows > 0) return;
    budget_rows = policy::rows_within(o.budget_bytes, owned()->memory(), [&](int layer) { return owned()->window(layer); }, policy->observe(), policy::kind(o.policy).scatters,
                                      options.n_batch);
    policy = policy::make(o.policy, policy_options(budget_rows));
  }

  void use_owned_memory(const MemoryOptions& o) {
    if (!attachment) throw InternalError("owned memory needs a session with Attention::sinkscope");
    const std::string& file = model->info.file;
    if (llama_model_is_recurrent(model->llama.get()) || llama_model_is_hybrid(model->llama.get()))
      throw InputError(fmt::format("'{}' remembers by more than attention, which owned memory cannot hold; use it without a policy", file));
    if (llama_model_has_encoder(model->llama.get()))
      throw InputError(fmt::format("'{}' has an encoder, which owned memory does not serve; use it without a policy", file));
    // A budget in bytes becomes one in rows when the layers are known: until then there is one batch at most.
    policy = policy::make(o.policy, policy_options(o.budget_bytes > 0 ? kUnknown : o.budget));
    attachment->owned = std::make_shared<backend::OwnedMemory>(cache::Memory(*attachment->kernels, cache::precision(options.kv_type), exact_positions()), positions(),
                                                            windows(*model), *attachment->kernels, policy->observe());
    if (has_learned_positions(*model)) owned()->memory().hold_base();
  }

  // Where rows stand that stay.
  backend::Positions positions() const {
    const std::string& wanted = options.memory->positions;
    if (wanted == "gaps") return backend::Positions::gaps;
    if (wanted != "auto" && wanted != "cache") throw UsageError(fmt::format("'{}' is no mode of positions; use auto or cache or gaps", wanted));
    const bool learned = has_learned_positions(*model);
    if (wanted == "cache" && learned)
      throw InputError(fmt::format("'{}' has learned positions, so that kept rows must stand where they were; give --positions gaps", model->info.file));
    if (wanted == "cache") return backend::Positions::cache;
    return learned || policy::kind(options.memory->policy).gaps ? backend::Positions::gaps : backend::Positions::cache_or_gaps;
  }

  void check(std::span<const int> tokens) const {
    if (owned() && has_learned_positions(*model) && owned()->memory().n_past() + static_cast<int64_t>(tokens.size()) > model->info.n_context_train)
      throw InputError(fmt::format("'{}' has learned {} positions and no more, {} tokens need as many; give fewer tokens", model->info.file,
                                   model->info.n_context_train, owned()->memory().n_past() + static_cast<int64_t>(tokens.size())));
    if (tokens.empty()) throw InputError("there are no tokens to run; give a longer text");
    if (!options.memory && n_past + static_cast<int64_t>(tokens.size()) > options.n_context)
      throw InputError(fmt::format("a prompt has {} tokens, the session was made for {}; make it with a larger n_context",
                                   n_past + tokens.size(), options.n_context));
    for (const int t : tokens)
      if (t < 0 || t >= model->info.n_vocab)
        throw InputError(fmt::format("token {} is outside the vocabulary of '{}', which has 0 to {}; use this model's ids",
                                     t, model->info.file, model->info.n_vocab - 1));
  }

  // Layers with a sliding window keep it, the others follow the policy.
  void make_room(int n_new) const {
    cache::Memory& memory = owned()->memory();
    for (size_t i = 0; i < memory.layers().size(); ++i) {
      cache::Layer& layer = memory.layers()[i];
      if (layer.heads.empty()) continue;  // no attention there
      policy->note(layer, static_cast<int>(i));
      const policy::Crowded crowded{.layer = layer, .memory = memory, .index = static_cast<int>(i), .n_layer = static_cast<int>(memory.layers().size()), .n_new = n_new};
      const int window = owned()->window(crowded.index);
      const policy::Kept kept = window > 0 ? policy::each_head(crowded, [&](const cache::Head& head) { return policy::first_and_last(head.n_row(), 0, window - 1); })
                                           : policy->keep(crowded);
      for (size_t h = 0; h < layer.heads.size(); ++h) layer.heads[h].keep(kept[h]);
    }
  }

  // A batch over owned memory: llama.cpp's cache is empty before and after it.
  void process_owned(std::span<const int> tokens, Logits logits) {
    cache::Memory& memory = owned()->memory();
    make_room(static_cast<int>(tokens.size()));
    memory.start_batch();
    const int64_t n_operation = attachment->n_operation;
    process(tokens, static_cast<int>(memory.n_past() - memory.base()), logits);
    if (attachment->n_operation == n_operation || !attachment->refused.empty())
      throw InputError(fmt::format("llama.cpp keeps attention of '{}' to itself ({}), so that owned memory cannot serve it; use it without a policy",
                                   model->info.file, attachment->refused.empty() ? "there is no operation" : attachment->refused[0]));
    memory.end_batch(static_cast<int>(tokens.size()));
    take_budget();
    llama_memory_clear(llama_get_memory(context.get()), /*data=*/false);
  }

  // Tokens behind those of the memory, batch by batch.
  void advance(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress);

  static constexpr int kOutOfMemory = -2;  // of llama_decode: a device could not allocate

  // One batch through the graph; without logits, the products of the vocabulary are spared.
  void process(std::span<const int> tokens, int first_position, Logits logits) {
    llama_batch batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
    const std::unique_ptr<llama_batch, void (*)(llama_batch*)> freed(&batch, [](llama_batch* b) { llama_batch_free(*b); });
    batch.n_tokens = static_cast<int>(tokens.size());
    for (int i = 0; i < batch.n_tokens; ++i) {
      batch.token[i] = tokens[i];
      batch.pos[i] = first_position + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      // llama.cpp computes the last layer for outputs alone, and hooks want to see all of it.
      batch.logits[i] = logits == Logits::all || !tensors.hooks.empty() || (logits == Logits::last && i == batch.n_tokens - 1);
    }
    if (attachment) {
      attachment->first_key = first_position;
      attachment->without_logits = logits == Logits::none;
    }
    tensors.begin_batch();
    llama_context* c = context.get();
    const bool has_memory = llama_get_memory(c) != nullptr;
    int status = 0;
    if (llama_model_has_encoder(model->llama.get()) || !has_memory) status = llama_encode(c, batch);
    if (status == 0 && has_memory) status = llama_decode(c, batch);
    if (tensors.failure) std::rethrow_exception(std::exchange(tensors.failure, nullptr));
    if (status == 0) return;
    if (attachment && attachment->failure) std::rethrow_exception(attachment->failure);
    if (status == kOutOfMemory) throw std::bad_alloc();
    throw InputError(fmt::format("llama.cpp failed on a batch of {} tokens (status {}: {}); try a smaller --batch or another "
                                 "--kv-type", tokens.size(), status, session::first_llama_error()));
  }
};

Session::Session(const Model& model, const SessionOptions& options) : impl_(std::make_unique<Impl>()) {
  impl_->model = &model.impl();
  impl_->options = options;
  impl_->options.n_thread = thread_count(options.n_thread);
  if (options.attention == Attention::sinkscope) {
    impl_->attachment = std::make_shared<backend::Attachment>();
    impl_->attachment->kernels = &attention::kernels(options.isa);
    impl_->attachment->n_thread = impl_->options.n_thread;
    impl_->attachment->kind = session::attention_kind(*impl_->model);
    if (options.batch_invariant) impl_->attachment->way = attention::Way::tiles;
  }
  if (options.memory) impl_->use_owned_memory(*options.memory);
  impl_->make_context();
  if (options.blas && !session::blas_failure().empty()) impl_->notes.push_back(session::blas_failure());
}

Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

void Session::watch(std::vector<Probe*> probes) {
  if (!impl_->attachment) throw InternalError("probes need a session with Attention::sinkscope");
  impl_->attachment->probes = std::move(probes);
}

void Session::hook_attention(std::vector<backend::CallHook*> hooks) {
  if (!impl_->attachment || impl_->owned()) throw InternalError("hooks of attention need a session with Attention::sinkscope and llama.cpp's memory");
  impl_->attachment->hooks = std::move(hooks);
}

void Session::hook_tensors(std::vector<TensorHook*> hooks) {
  if (!impl_->options.tensors) throw InternalError("hooks need a session with SessionOptions::tensors");
  impl_->tensors.hooks = std::move(hooks);
}

void Session::run(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress) {
  if (llama_memory_t memory = llama_get_memory(impl_->context.get())) llama_memory_clear(memory, /*data=*/false);
  impl_->n_past = 0;
  if (impl_->owned()) impl_->owned()->memory().clear();
  impl_->advance(tokens, logits, progress);
}

void Session::append(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress) {
  if (!has_memory())
    throw InputError(fmt::format("'{}' has no memory to append to; give whole prompts to run()", impl_->model->info.file));
  impl_->advance(tokens, logits, progress);
}

void Session::Impl::advance(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress) {
  check(tokens);
  if (attachment) attachment->failure = nullptr;
  llama_context* c = context.get();
  if (logits) logits->clear();
  const size_t n_vocab = model->info.n_vocab;
  const int n = static_cast<int>(tokens.size()), n_batch = batch_size();
  for (int first = 0; first < n; first += n_batch) {
    const int m = std::min(n_batch, n - first);
    const Logits wanted = !logits ? Logits::none : options.all_logits ? Logits::all : first + m == n ? Logits::last : Logits::none;
    if (owned()) process_owned(tokens.subspan(first, m), wanted);
    else process(tokens.subspan(first, m), n_past, wanted);
    n_past += m;
    for (int i = wanted == Logits::all ? 0 : m - 1; wanted != Logits::none && i < m; ++i) {
      const float* row = llama_get_logits_ith(c, i);
      if (!row) throw InputError(fmt::format("'{}' gives no logits; it is not a language model", model->info.file));
      logits->insert(logits->end(), row, row + n_vocab);
    }
    if (progress) progress(first + m);
  }
}

void Session::keep_by(std::shared_ptr<const policy::Policy> policy) {
  if (!impl_->owned()) throw InternalError("only owned memory has a policy");
  impl_->policy = std::move(policy);
}

bool Session::has_memory() const { return llama_get_memory(impl_->context.get()) != nullptr; }
std::vector<uint8_t> Session::save() const {
  if (!impl_->owned()) throw InternalError("only owned memory can be saved");
  return cache::to_bytes(impl_->owned()->memory());
}
void Session::load(std::span<const uint8_t> bytes) {
  if (!impl_->owned()) throw InternalError("only owned memory can be loaded");
  cache::from_bytes(bytes, impl_->owned()->memory());
  if (!impl_->owned()->memory().layers().empty()) impl_->take_budget();
}
Sequence Session::fork() const {
  if (!impl_->owned()) throw InternalError("only owned memory can be forked");
  Sequence sequence;
  sequence.memory_ = std::make_shared<const cache::Memory>(impl_->owned()->memory());
  return sequence;
}
void Session::go_on(const Sequence& sequence) {
  if (!impl_->owned()) throw InternalError("only owned memory goes on from a fork");
  impl_->owned()->memory() = *sequence.memory_;
}
int64_t Sequence::n_past() const { return memory_->n_past(); }
int64_t Session::n_past() const { return impl_->owned() ? impl_->owned()->memory().n_past() : impl_->n_past; }
size_t Session::memory_bytes() const { return impl_->owned() ? impl_->owned()->memory().bytes() : 0; }
double Session::memory_rows() const {
  int64_t n_row = 0, n_head = 0;
  if (impl_->owned())
    for (const cache::Layer& layer : impl_->owned()->memory().layers())
      for (const cache::Head& head : layer.heads) n_row += head.n_row(), ++n_head;
  return n_head ? static_cast<double>(n_row) / static_cast<double>(n_head) : 0;
}
int Session::memory_budget() const {
  return !impl_->options.memory ? 0 : impl_->options.memory->budget_bytes > 0 ? impl_->budget_rows : impl_->options.memory->budget;
}
int Session::n_thread() const { return impl_->options.n_thread; }
const char* Session::isa() const { return impl_->attachment ? impl_->attachment->kernels->name : "llama.cpp"; }
int64_t Session::n_operation() const { return impl_->attachment ? impl_->attachment->n_operation : 0; }
const std::vector<std::string>& Session::refused() const {
  static const std::vector<std::string> none;
  return impl_->attachment ? impl_->attachment->refused : none;
}
const std::vector<std::string>& Session::notes() const { return impl_->notes; }

void check_kv_type(const std::string& name) { kv_type_of(name); }

namespace {
void (*fatal_handler)(const char*) = nullptr;
}

void on_fatal(void (*handler)(const char*)) {
  fatal_handler = handler;
  ggml_set_abort_callback([](const char* message) {
    if (!fatal_handler) return;
    std::string sentence = fmt::format("llama.cpp gave up: {}", message);
    for (char& c : sentence)
      if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';  // it may quote the file
    fatal_handler(sentence.c_str());
  });
}

}  // namespace sinkscope
