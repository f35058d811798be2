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
#include "session/blas_check.h"
#include "session/llama_log.h"
#include "session/model.h"
#include "session/registry_mutex.h"
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
  std::vector<std::string> notes;
  int n_past = 0;  // tokens in the memory

  void make_context() {
    const ModelInfo& info = model->info;
    const ggml_type type = kv_type_of(options.kv_type);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = options.n_context;
    params.n_batch = params.n_ubatch = std::clamp(options.n_batch, 1, options.n_context);
    params.n_outputs_max = options.all_logits ? 0 : 1;
    params.n_threads = params.n_threads_batch = options.n_thread;
    params.flash_attn_type = options.attention == Attention::llama_plain ? LLAMA_FLASH_ATTN_TYPE_DISABLED
                                                                         : LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = type;
    params.type_v = type;
    params.offload_kqv = false;  // keys, values and attention on the host, where the device is
    params.swa_full = true;      // cell index = position in layers with a sliding window too
    params.no_perf = true;
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
      params.n_batch = params.n_ubatch = options.n_batch = options.n_context;
      params.n_outputs_max = 0;
      create();
    }
  }

  void check(std::span<const int> tokens) const {
    if (tokens.empty()) throw InputError("there are no tokens to run; give a longer text");
    if (n_past + static_cast<int64_t>(tokens.size()) > options.n_context)
      throw InputError(fmt::format("a prompt has {} tokens, the session was made for {}; make it with a larger n_context",
                                   n_past + tokens.size(), options.n_context));
    for (const int t : tokens)
      if (t < 0 || t >= model->info.n_vocab)
        throw InputError(fmt::format("token {} is outside the vocabulary of '{}', which has 0 to {}; use this model's ids",
                                     t, model->info.file, model->info.n_vocab - 1));
  }

  // Tokens behind those of the memory, batch by batch.
  void advance(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress);

  static constexpr int kOutOfMemory = -2;  // of llama_decode: a device could not allocate

  // One batch through the graph; without logits, the products of the vocabulary are spared.
  void process(std::span<const int> tokens, int first_position, bool with_logits) {
    llama_batch batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
    const std::unique_ptr<llama_batch, void (*)(llama_batch*)> freed(&batch, [](llama_batch* b) { llama_batch_free(*b); });
    batch.n_tokens = static_cast<int>(tokens.size());
    for (int i = 0; i < batch.n_tokens; ++i) {
      batch.token[i] = tokens[i];
      batch.pos[i] = first_position + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = with_logits;
    }
    llama_context* c = context.get();
    const bool has_memory = llama_get_memory(c) != nullptr;
    int status = 0;
    if (llama_model_has_encoder(model->llama.get()) || !has_memory) status = llama_encode(c, batch);
    if (status == 0 && has_memory) status = llama_decode(c, batch);
    if (status == 0) return;
    if (attachment && !attachment->failure.empty()) throw InternalError(attachment->failure);
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
    if (options.batch_invariant) impl_->attachment->way = attention::Way::tiles;
  }
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

void Session::run(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress) {
  if (llama_memory_t memory = llama_get_memory(impl_->context.get())) llama_memory_clear(memory, /*data=*/false);
  impl_->n_past = 0;
  impl_->advance(tokens, logits, progress);
}

void Session::append(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress) {
  if (!has_memory())
    throw InputError(fmt::format("'{}' has no memory to append to; give whole prompts to run()", impl_->model->info.file));
  impl_->advance(tokens, logits, progress);
}

void Session::Impl::advance(std::span<const int> tokens, std::vector<float>* logits, const std::function<void(int)>& progress) {
  check(tokens);
  if (attachment) attachment->failure.clear();
  llama_context* c = context.get();
  if (logits) logits->clear();
  const size_t n_vocab = model->info.n_vocab;
  const int n = static_cast<int>(tokens.size()), n_batch = std::clamp(options.n_batch, 1, options.n_context);
  for (int first = 0; first < n; first += n_batch) {
    const int m = std::min(n_batch, n - first);
    process(tokens.subspan(first, m), n_past, logits != nullptr);
    n_past += m;
    for (int i = 0; logits && i < m; ++i) {
      const float* row = llama_get_logits_ith(c, i);
      if (!row) throw InputError(fmt::format("'{}' gives no logits; it is not a language model", model->info.file));
      logits->insert(logits->end(), row, row + n_vocab);
    }
    if (progress) progress(first + m);
  }
}

bool Session::has_memory() const { return llama_get_memory(impl_->context.get()) != nullptr; }
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
