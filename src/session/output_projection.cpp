#include "session/output_projection.h"

#include <cstring>
#include <fstream>
#include <memory>

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

#include "sinkscope/error.h"

namespace sinkscope::session {
namespace {

// The parts of a file and where they are, without their bytes.
struct Contents {
  explicit Contents(const std::string& from) : path(from) {
    ggml_context* tensors = nullptr;
    file.reset(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = &tensors}));
    shapes.reset(tensors);
  }
  std::string path;
  std::unique_ptr<gguf_context, decltype(&gguf_free)> file{nullptr, &gguf_free};
  std::unique_ptr<ggml_context, decltype(&ggml_free)> shapes{nullptr, &ggml_free};
};

policy::Projection read(const Contents& contents, int layer) {
  const std::string name = fmt::format("blk.{}.attn_output.weight", layer);
  const int64_t id = contents.file ? gguf_find_tensor(contents.file.get(), name.c_str()) : -1;
  if (id < 0) throw InputError(fmt::format("'{}' has no tensor '{}', by which policy criticalkv judges values; use another policy", contents.path, name));
  const ggml_tensor* tensor = ggml_get_tensor(contents.shapes.get(), name.c_str());
  std::vector<char> bytes(ggml_nbytes(tensor));
  std::ifstream stream(contents.path, std::ios::binary);
  stream.seekg(static_cast<std::streamoff>(gguf_get_data_offset(contents.file.get()) + gguf_get_tensor_offset(contents.file.get(), id)));
  if (!stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size())))
    throw InputError(fmt::format("cannot read '{}' of '{}'; give a whole file", name, contents.path));
  policy::Projection p{std::vector<float>(static_cast<size_t>(ggml_nelements(tensor))), static_cast<int>(tensor->ne[0])};
  if (tensor->type == GGML_TYPE_F32) std::memcpy(p.weights.data(), bytes.data(), bytes.size());
  else ggml_get_type_traits(tensor->type)->to_float(bytes.data(), p.weights.data(), static_cast<int64_t>(p.weights.size()));
  return p;
}

}  // namespace

std::function<policy::Projection(int)> output_projection(const Model::Impl& model) {
  return [path = model.info.file, contents = std::shared_ptr<const Contents>()](int layer) mutable {
    if (!contents) contents = std::make_shared<const Contents>(path);
    return read(*contents, layer);
  };
}

}  // namespace sinkscope::session
