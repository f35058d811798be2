#include "backend/device.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include <ggml-backend-impl.h>
#include <ggml-impl.h>

#include "backend/operation.h"
#include "backend/products.h"
#include "backend/registry.h"

namespace sinkscope::backend {
namespace {

thread_local std::shared_ptr<Attachment> attachment_of_thread;
std::optional<Attachment> attachment_by_default;

// What ggml holds of one context: the backend and, so that contexts differ in what they take, a device of its own.
struct Instance {
  std::shared_ptr<Attachment> attachment;
  attention::Workspace work;
  ggml_backend_device device;
};

const std::shared_ptr<Attachment>& attachment_of(ggml_backend_dev_t device) {
  static const std::shared_ptr<Attachment> none;
  const auto* instance = static_cast<const Instance*>(device->context);
  return instance ? instance->attachment : none;
}

// --- backend: computes graphs

const char* backend_name(ggml_backend_t) { return "sinkscope"; }

void free_backend(ggml_backend_t backend) {
  delete static_cast<Instance*>(backend->context);
  delete backend;
}

void attend(Instance& instance, const ggml_cgraph* graph, int index) {
  Attachment& a = *instance.attachment;
  attention::Call call = call_of(graph->nodes[index]);
  call.layer = layer_of(graph, index);
  ++a.n_operation;
  call.first_key = a.first_key;
  const bool named = call.layer >= 0;
  if (named) a.kind.apply(call);
  const std::span<Probe* const> probes = named ? a.probes : std::span<Probe* const>();
  if (a.owned) return a.owned->attend(graph->nodes[index], call, probes, *a.kernels, a.n_thread, instance.work, a.way);
  const std::span<CallHook* const> hooks = named ? a.hooks : std::span<CallHook* const>();
  const auto compute = [&](std::span<Probe* const> watching) { attention::attend(call, watching, *a.kernels, a.n_thread, instance.work, a.way); };
  for (CallHook* hook : hooks)
    hook->before(call, [&](Probe& probe) {
      Probe* const watching[] = {&probe};
      compute(watching);
    });
  compute(probes);
  for (CallHook* hook : hooks) hook->after(call, a.ropes.of(graph->nodes[index], call.layer), *a.kernels);
}

// Logits that nobody will read: neither their product is computed, nor are they copied to where llama.cpp hands them out.
bool is_left_out(const Instance& instance, const ggml_tensor* node) {
  return instance.attachment->without_logits && node->op == GGML_OP_MUL_MAT && std::string_view(node->name) == "result_output";
}

void get_tensor(ggml_backend_t backend, const ggml_tensor* tensor, void* data, size_t offset, size_t size) {
  if (!is_left_out(*static_cast<Instance*>(backend->context), tensor)) ggml_backend_tensor_get(tensor, data, offset, size);
}

// ggml is C: nothing may be thrown through it.
ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph* graph) {
  auto& instance = *static_cast<Instance*>(backend->context);
  try {
    for (int i = 0; i < graph->n_nodes; ++i) {
      const ggml_tensor* node = graph->nodes[i];
      if (!(node->flags & GGML_TENSOR_FLAG_COMPUTE)) continue;
      if (node->op == GGML_OP_FLASH_ATTN_EXT) attend(instance, graph, i);
      else if (node->op == GGML_OP_MUL_MAT && !is_left_out(instance, node)) multiply(node, instance.attachment->n_thread, instance.work);
    }
    return GGML_STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return GGML_STATUS_ALLOC_FAILED;
  } catch (const std::exception&) {
    instance.attachment->failure = std::current_exception();
    return GGML_STATUS_FAILED;
  }
}

void set_n_threads(ggml_backend_t backend, int n_thread) {
  if (const auto& a = static_cast<Instance*>(backend->context)->attachment) a->n_thread = n_thread;
}

ggml_guid_t guid() {
  static ggml_guid id = {0x73, 0x69, 0x6e, 0x6b, 0x73, 0x63, 0x6f, 0x70, 0x65, 0x2d, 0x61, 0x74, 0x74, 0x65, 0x6e, 0x64};
  return &id;
}

// --- device: says what it takes

const char* device_name(ggml_backend_dev_t) { return "sinkscope"; }
const char* device_description(ggml_backend_dev_t) { return "attention with statistics"; }
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }
ggml_backend_buffer_type_t buffer_type(ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); }
bool supports_buffer(ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return ggml_backend_buft_is_host(type); }

// The memory is the CPU's, and reported there.
void device_memory(ggml_backend_dev_t, size_t* free, size_t* total) { *free = *total = 0; }

void device_props(ggml_backend_dev_t device, ggml_backend_dev_props* props) {
  *props = {};
  props->name = device_name(device);
  props->description = device_description(device);
  props->type = device_type(device);
  props->caps = {.async = false, .host_buffer = false, .buffer_from_host_ptr = true, .events = false,
                 .mmap_support = true};
}

ggml_backend_buffer_t buffer_from_host(ggml_backend_dev_t, void* data, size_t size, size_t) {
  return ggml_backend_cpu_buffer_from_ptr(data, size);
}

bool supports_operation(ggml_backend_dev_t device, const ggml_tensor* node) {
  const std::shared_ptr<Attachment>& a = attachment_of(device);
  if (!a) return false;
  switch (node->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE: return true;
    case GGML_OP_MUL_MAT: return takes(a->products, node);
    case GGML_OP_FLASH_ATTN_EXT: break;
    default: return false;
  }
  const auto reason = reason_against(node);
  if (reason && std::find(a->refused.begin(), a->refused.end(), *reason) == a->refused.end())
    a->refused.push_back(*reason);
  return !reason;
}

ggml_backend_t make_backend(ggml_backend_dev_t device, const char*) {
  std::shared_ptr<Attachment> attachment = attachment_of_thread;
  if (!attachment && attachment_by_default) attachment = std::make_shared<Attachment>(*attachment_by_default);
  auto* instance = new Instance{std::move(attachment), {}, *device};
  instance->device.context = instance;
  ggml_backend_i methods{};
  methods.get_name = backend_name;
  methods.free = free_backend;
  methods.get_tensor_async = get_tensor;
  methods.graph_compute = compute_graph;
  return new ggml_backend{guid(), methods, &instance->device, instance};
}

// --- registry entry: one device

const char* registry_name(ggml_backend_reg_t) { return "sinkscope"; }
size_t device_count(ggml_backend_reg_t) { return 1; }

ggml_backend_dev_t get_device(ggml_backend_reg_t registry, size_t) {
  static ggml_backend_device device = [&] {
    ggml_backend_device_i methods{};
    methods.get_name = device_name;
    methods.get_description = device_description;
    methods.get_memory = device_memory;
    methods.get_type = device_type;
    methods.get_props = device_props;
    methods.init_backend = make_backend;
    methods.get_buffer_type = buffer_type;
    methods.buffer_from_host_ptr = buffer_from_host;
    methods.supports_op = supports_operation;
    methods.supports_buft = supports_buffer;
    return ggml_backend_device{methods, registry, nullptr};
  }();
  return &device;
}

void* proc_address(ggml_backend_reg_t, const char* name) {
  if (std::string_view(name) == "ggml_backend_set_n_threads") return reinterpret_cast<void*>(set_n_threads);
  return nullptr;
}

}  // namespace

ggml_backend_reg_t registry() {
  static ggml_backend_reg entry = {GGML_BACKEND_API_VERSION,
                                   {registry_name, device_count, get_device, proc_address},
                                   nullptr};
  return &entry;
}

void AttentionKind::apply(attention::Call& call) const {
  const size_t layer = call.layer;
  if (layer < sink_logits.size()) call.learned_sink = sink_logits[layer].data();
  if (layer < key_bias.size()) call.learned_key = key_bias[layer].data(), call.learned_value = value_bias[layer].data();
  call.sigmoid = sigmoid;
}

AttachScope::AttachScope(std::shared_ptr<Attachment> attachment)
    : before_(std::exchange(attachment_of_thread, std::move(attachment))) {}
AttachScope::~AttachScope() { attachment_of_thread = std::move(before_); }

void attach_by_default(const Attachment& attachment) { attachment_by_default = attachment; }

void register_device() { ggml_backend_register(registry()); }

}  // namespace sinkscope::backend
