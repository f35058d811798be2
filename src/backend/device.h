// The ggml device that takes attention (GGML_OP_FLASH_ATTN_EXT) out of llama.cpp's graph and, where asked to, matrix
// products.
//
// It is registered once for the process, as type ACCEL on the CPU's buffers, so that llama.cpp adds it to every
// context and ggml's scheduler gives it the operation. Each context gets an instance of its own, which does what the
// Attachment says that was in force on the creating thread; without one it takes nothing and changes nothing.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attention/attend.h"
#include "backend/owned.h"
#include "backend/products.h"
#include "sinkscope/probe.h"

namespace sinkscope::backend {

// Stands before and behind each attention operation whose layer the graph names. Not with owned memory.
class CallHook {
 public:
  virtual ~CallHook() = default;
  // May set call.edits, to what lives until after(). `compute` does the operation as it is, for probes alone.
  virtual void before(attention::Call&, const std::function<void(Probe&)>& compute) { (void)compute; }
  // The output is there.
  virtual void after(const attention::Call&, const Rope&, const attention::Kernels&) {}
};

// Attention that a model's metadata adds to llama.cpp's graph; empty lists add nothing. By layer, as attention::Call has it.
struct AttentionKind {
  std::vector<std::vector<float>> sink_logits = {};                // [n_head]
  std::vector<std::vector<float>> key_bias = {}, value_bias = {};  // [n_head_kv, d]: both, or none
  bool sigmoid = false;

  void apply(attention::Call& call) const;
};

// What one context's instance of the device does, and what it saw. Change `probes` only between graphs.
struct Attachment {
  const attention::Kernels* kernels = nullptr;
  attention::Way way = attention::Way::best;
  int n_thread = 1;                     // until llama.cpp says another number
  std::vector<Probe*> probes;
  std::vector<CallHook*> hooks;
  int first_key = 0;                    // the key of the batch's first token
  Ropes ropes;
  AttentionKind kind;                   // of layers that the graph names
  bool without_logits = false;          // nobody will read them: the product of the vocabulary is left out where we multiply
  Products products = Products::none;   // matrix products too, by OpenBLAS
  std::shared_ptr<OwnedMemory> owned;   // attention goes over this memory; null: over llama.cpp's cache

  int64_t n_operation = 0;              // attention operations computed; probes see those that the graph names a layer of
  std::vector<std::string> refused;     // reasons for operations left to llama.cpp, each once
  std::exception_ptr failure;           // what a probe or the kernel threw
};

// While it lives, contexts made on this thread get `attachment`.
class AttachScope {
 public:
  explicit AttachScope(std::shared_ptr<Attachment> attachment);
  ~AttachScope();
  AttachScope(const AttachScope&) = delete;
  AttachScope& operator=(const AttachScope&) = delete;

 private:
  std::shared_ptr<Attachment> before_;
};

// For every context that has no scope, a copy each: what the plugin uses.
void attach_by_default(const Attachment& attachment);

// Registers the device with ggml; later calls do nothing.
void register_device();

}  // namespace sinkscope::backend
