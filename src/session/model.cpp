#include "session/model.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "backend/device.h"
#include "session/llama_log.h"
#include "session/registry_mutex.h"
#include "session/text.h"
#include "sinkscope/error.h"
#include "sinkscope/models.h"

namespace sinkscope {
namespace {

// What llama.cpp would only say in its log: no file, a folder, nothing in it, another format.
void check_file(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) throw InputError(fmt::format("'{}' is a folder; give a GGUF file in it", path));
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("cannot read '{}' ({}); give a GGUF file", path, std::strerror(errno)));
  std::array<char, 4> magic{};
  file.read(magic.data(), magic.size());
  if (file.gcount() == 0) throw InputError(fmt::format("'{}' is empty; give a GGUF file", path));
  if (std::string_view(magic.data(), file.gcount()) != "GGUF")
    throw InputError(fmt::format("'{}' is not a GGUF file (it does not start with 'GGUF'); convert the model with "
                                 "llama.cpp's convert_hf_to_gguf.py", path));
}

// A number, or the largest of an array with one for each layer.
int largest(const std::string& meta, int otherwise) {
  const auto json = nlohmann::json::parse(meta, nullptr, /*allow_exceptions=*/false);
  int most = json.is_number_integer() ? json.get<int>() : otherwise;
  for (const auto& n : json.is_array() ? json : nlohmann::json::array())
    if (n.is_number_integer()) most = std::max(most, n.get<int>());
  return most;
}

// llama.cpp's quantisation name as its files have it: "Q4_K_M" for "(guessed) Q4_K - Medium".
std::string file_type_of(const llama_model* model) {
  std::string name = llama_ftype_name(llama_model_ftype(model));
  constexpr std::string_view kGuessed = "(guessed) ";
  if (name.starts_with(kGuessed)) name.erase(0, kGuessed.size());
  const size_t remark = name.find(" - ");
  if (remark == std::string::npos) return name;
  const std::string size = name.substr(remark + 3);
  name.resize(remark);
  for (const auto& [word, letter] : {std::pair("Small", "_S"), {"Medium", "_M"}, {"Large", "_L"}})
    if (size == word) name += letter;
  return name;
}

// What the tokenizer puts around a text. WordPiece, of encoders, does so without a word in the file.
void name_marks(const llama_vocab* vocab, ModelInfo& info) {
  const bool wordpiece = llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_WPM;
  const auto known = [&](llama_token token) { return token < info.n_vocab ? token : -1; };
  info.bos = known(llama_vocab_bos(vocab));
  info.adds_bos = wordpiece || llama_vocab_get_add_bos(vocab);
  info.closing = wordpiece || llama_vocab_get_add_sep(vocab) ? known(llama_vocab_sep(vocab)) : llama_vocab_get_add_eos(vocab) ? known(llama_vocab_eos(vocab)) : -1;
}

}  // namespace

std::string Model::Impl::meta(const std::string& key) const {
  const int n = llama_model_meta_val_str(llama.get(), key.c_str(), nullptr, 0);
  if (n < 0) return "";
  std::string value(n + 1, '\0');
  llama_model_meta_val_str(llama.get(), key.c_str(), value.data(), value.size());
  value.resize(n);
  return value;
}

Model::Model(const std::string& name_or_path, int n_gpu_layer) : impl_(std::make_unique<Impl>()) {
  const std::string path = resolve_model(name_or_path);
  check_file(path);

  const std::lock_guard lock(session::registry_mutex());
  static std::once_flag once;
  std::call_once(once, [] {
    session::keep_llama_log();
    llama_backend_init();
    backend::register_device();
  });
  session::clear_llama_log();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = n_gpu_layer;
  impl_->llama.reset(llama_model_load_from_file(path.c_str(), params));
  if (!impl_->llama)
    throw InputError(fmt::format("llama.cpp cannot load '{}' ({}); give a whole GGUF file of an architecture that it runs, and "
                                 "enough memory", path, session::first_llama_error()));

  const llama_model* m = impl_->llama.get();
  impl_->vocab = llama_model_get_vocab(m);
  ModelInfo& info = impl_->info;
  info.file = path;
  info.architecture = impl_->meta("general.architecture");
  info.name = impl_->meta("general.name");
  if (info.name.empty()) info.name = std::filesystem::path(path).stem();
  info.file_type = file_type_of(m);
  info.attention = impl_->meta("sinkscope.attention.kind");
  if (info.attention.empty()) info.attention = "softmax";
  info.n_layer = llama_model_n_layer(m);
  info.n_head = largest(impl_->meta(info.architecture + ".attention.head_count"), llama_model_n_head(m));
  info.n_head_kv = largest(impl_->meta(info.architecture + ".attention.head_count_kv"), llama_model_n_head_kv(m));
  info.n_embd = llama_model_n_embd(m);
  info.n_expert = largest(impl_->meta(info.architecture + ".expert_count"), 0);
  info.n_vocab = llama_vocab_n_tokens(impl_->vocab);
  info.n_context_train = llama_model_n_ctx_train(m);
  name_marks(impl_->vocab, info);
  info.mask = llama_vocab_mask(impl_->vocab);
  info.is_diffusion = llama_model_is_diffusion(m);
  info.shifts_logits = info.is_diffusion && impl_->meta("diffusion.shift_logits") != "false";  // as llama.cpp takes it
  info.has_cross_attention = llama_model_has_encoder(m) && llama_model_has_decoder(m);
}

Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

const ModelInfo& Model::info() const { return impl_->info; }

std::vector<int> Model::tokenize(std::string_view text, bool marks) const {
  if (llama_vocab_type(impl_->vocab) == LLAMA_VOCAB_TYPE_NONE)
    throw InputError(fmt::format("'{}' carries no tokenizer; give a model that has one, or prompts as token ids (sinkscope profile --tokens)", impl_->info.file));
  const auto tokenize_into = [&](std::vector<int>& tokens) {
    return llama_tokenize(impl_->vocab, text.data(), static_cast<int>(text.size()), tokens.data(),
                          static_cast<int>(tokens.size()), /*add_special=*/false, marks);
  };
  std::vector<int> tokens(text.size() / 2 + 16);
  int n = 0;
  try {
    n = tokenize_into(tokens);
    if (n < 0) {
      tokens.resize(-n);
      n = tokenize_into(tokens);
    }
  } catch (const std::exception& e) {
    throw InputError(fmt::format("llama.cpp's tokenizer cannot read a text ({}); give plain UTF-8", e.what()));
  }
  if (n < 0) throw InputError(fmt::format("a text of {} bytes is too long for llama.cpp's tokenizer; cut it", text.size()));
  tokens.resize(n);
  return tokens;
}

std::string Model::chat_text(std::span<const ChatMessage> messages, bool reply) const {
  const char* chat_template = llama_model_chat_template(impl_->llama.get(), nullptr);
  std::vector<llama_chat_message> list;
  for (const ChatMessage& m : messages) list.push_back({m.role.c_str(), m.content.c_str()});
  std::string text(256, '\0');
  for (int n = -1; chat_template;) {
    n = llama_chat_apply_template(chat_template, list.data(), list.size(), reply, text.data(), static_cast<int>(text.size()));
    if (n < 0) break;
    const bool whole = n <= static_cast<int>(text.size());
    text.resize(n);
    if (whole) return text;
  }
  throw InputError(fmt::format("'{}' has no chat template that llama.cpp knows; use it without --chat", impl_->info.file));
}

bool Model::is_end(int token) const {
  return llama_vocab_type(impl_->vocab) != LLAMA_VOCAB_TYPE_NONE && llama_vocab_is_eog(impl_->vocab, token);
}

std::string Model::token_text(int token) const {
  if (llama_vocab_type(impl_->vocab) == LLAMA_VOCAB_TYPE_NONE || token < 0 || token >= impl_->info.n_vocab) return "";
  std::string text(64, '\0');
  for (int n;;) {
    n = llama_token_to_piece(impl_->vocab, token, text.data(), static_cast<int>(text.size()), 0, /*special=*/true);
    text.resize(std::abs(n));
    if (n >= 0) return text;
  }
}

std::vector<std::string> Model::token_texts(std::span<const int> tokens) const {
  std::vector<std::string> texts;
  size_t begun = 0;  // the last text that may end within a character
  for (const int token : tokens) {
    std::string text = token_text(token);
    size_t n = 0;
    while (!texts.empty() && n < text.size() && (text[n] & 0xC0) == 0x80 && session::unfinished(texts[begun]) > 0) texts[begun] += text[n++];
    text.erase(0, n);
    if (!text.empty()) begun = texts.size();
    texts.push_back(std::move(text));
  }
  return texts;
}

bool Model::is_control(int token) const {
  return llama_vocab_type(impl_->vocab) != LLAMA_VOCAB_TYPE_NONE && llama_vocab_is_control(impl_->vocab, token);
}

}  // namespace sinkscope
