#include "training/trainer.h"

#include <dlfcn.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include <ATen/autocast_mode.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <torch/torch.h>
#include <unistd.h>

#include "data/packing.h"
#include "data/token_file.h"
#include "export/gguf.h"
#include "io/places.h"
#include "sinkscope/atomic_file.h"
#include "sinkscope/error.h"
#include "training/loss.h"

namespace sinkscope::train {
namespace {

namespace fs = std::filesystem;
using torch::Tensor;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double product_gflops() {
  constexpr int64_t n = 1024;
  const Tensor a = torch::randn({n, n}), b = torch::randn({n, n});
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const auto start = Clock::now();
    torch::mm(a, b);
    best = std::max(best, 2.0 * n * n * n / seconds_since(start) / 1e9);
  }
  return best;
}

// The library that libtorch's products go to: reference BLAS is 30 times slower.
std::string blas_library() {
  Dl_info info{};
  void* sgemm = dlsym(RTLD_DEFAULT, "sgemm_");
  if (!sgemm || !dladdr(sgemm, &info) || !info.dli_fname) return "";
  std::error_code ignored;
  const fs::path real = fs::canonical(info.dli_fname, ignored);
  return real.empty() ? info.dli_fname : real.string();
}

void put_whole(const std::string& path, const std::string& bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

// bf16 for the products of what runs while it lives.
class Autocast {
 public:
  explicit Autocast(bool on) : on_(on) {
    if (!on_) return;
    at::autocast::set_autocast_cpu_dtype(at::kBFloat16);
    at::autocast::set_cpu_enabled(true);
  }
  ~Autocast() {
    if (!on_) return;
    at::autocast::clear_cache();
    at::autocast::set_cpu_enabled(false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  bool on_;
};

// A folder that one process alone writes to while this lives: a lock of the kernel's, which ends with the process.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder) : file_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    constexpr int kPatience = 50;  // tenths of a second: a killed process takes a while to die
    for (int i = 0; file_ >= 0 && ::flock(file_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK; ++i) {  // other failures: a file system without locks
      if (i == kPatience) {
        ::close(file_);
        throw InputError(fmt::format("another process trains in '{}'; wait for its end or give a folder of its own", folder));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  ~FolderLock() {
    if (file_ >= 0) ::close(file_);
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_;
};

// `read` takes from the archive what it needs.
template <class Read>
void read_checkpoint(const std::string& path, const Read& read) {
  try {
    torch::serialize::InputArchive archive;
    archive.load_from(path);
    read(archive);
  } catch (const c10::Error& e) {
    const std::string what = e.what_without_backtrace();
    throw InputError(fmt::format("'{}' cannot be read as a checkpoint of this run ({}); move it away to start again", path, what.substr(0, what.find('\n'))));
  }
}

// Weights are of the tokens that they were trained on: other tokens may stand in a folder of the same name by now.
void check_data(torch::serialize::InputArchive& archive, const TokenFile& data, const RunConfig& config) {
  Tensor sum;
  if (!archive.try_read("data", sum)) return;  // a checkpoint of before it was kept
  const std::string trained_on(reinterpret_cast<const char*>(sum.data_ptr<uint8_t>()), static_cast<size_t>(sum.numel()));
  if (trained_on != data.sha256())
    throw InputError(fmt::format("the tokens in '{}' are not those that this run was trained on; prepare the same texts again, or give the run a folder of its own", config.data.folder));
}

// Diffusion models have one token more, the mask.
LanguageModel made_model(const RunConfig& c, const TokenFile& data) {
  return LanguageModel(c.model, data.n_vocab() + (c.model.diffusion ? 1 : 0), c.data.context, c.training.seed);
}

class Trainer {
 public:
  Trainer(const RunConfig& config, const std::string& folder)
      : c_(config), folder_(folder), data_(config.data.folder), packing_(data_, config.data.packing, config.training.seed),
        model_(made_model(config, data_)), optimizer_(groups(), torch::optim::AdamWOptions(config.training.rate)) {
    mask_token_ = torch::tensor(int64_t{data_.n_vocab()});
    n_step_ = std::max<int64_t>(1, c_.training.tokens / tokens_of_step());
    n_flop_ = 6.0 * static_cast<double>(model_->n_active_parameter());
    // Two products of queries and keys, and two of weights and values, forward and twice backward.
    n_flop_ += 12.0 * c_.model.n_layer * c_.model.n_head * c_.model.d_head * c_.data.context;
    io::make_folder(folder);
    lock_.emplace(folder);
    claim();
    remove_leftovers(folder);
    remove_leftovers(path("steps"));
  }

  Outcome run(const Watch& watch) {
    Outcome outcome{.finished = false, .n_trained = 0, .state = {}, .curve = {}, .product_gflops = product_gflops()};
    load();
    const std::vector<int64_t> measured = measured_steps(n_step_, c_.training.measurements);
    const auto start = Clock::now();
    const int64_t first = step_;
    State& s = outcome.state;
    bool go_on = true;
    measure_at(measured);
    while (step_ < n_step_ && go_on) {
      loss_sum_ += one_step();
      ++n_loss_, ++step_;
      measure_at(measured);
      const double seconds = seconds_since(start), done = static_cast<double>(step_ - first);
      s = {.step = step_, .n_step = n_step_, .tokens = step_ * tokens_of_step(), .loss = loss_, .tokens_per_second = done * static_cast<double>(tokens_of_step()) / seconds,
           .seconds_left = seconds / done * static_cast<double>(n_step_ - step_), .gflops = done * static_cast<double>(tokens_of_step()) * n_flop_ / seconds / 1e9,
           .last = curve_.empty() ? std::nullopt : std::optional(curve_.back())};
      if (watch) go_on = watch(s);
      if (step_ % c_.training.checkpoint == 0 || step_ == n_step_ || !go_on) save();
    }
    s.step = step_, s.n_step = n_step_, s.tokens = step_ * tokens_of_step();
    if (!curve_.empty()) s.last = curve_.back();
    outcome.finished = step_ == n_step_, outcome.n_trained = step_ - first;
    outcome.curve = curve_;
    if (outcome.finished && why_not_gguf(c_.model).empty()) write_gguf_to(path("model.gguf"));
    return outcome;
  }

 private:
  std::string path(const std::string& name) const { return (fs::path(folder_) / name).string(); }
  int64_t tokens_of_step() const { return int64_t{c_.training.batch} * c_.training.accumulate * c_.data.context; }

  // What has two dimensions decays, as in nanoGPT; norms, biases and learned logits do not.
  std::vector<torch::optim::OptimizerParamGroup> groups() {
    std::vector<Tensor> matrices, others;
    for (const Tensor& p : model_->parameters()) (p.dim() >= 2 ? matrices : others).push_back(p);
    const auto group = [&](std::vector<Tensor> list, double decay) {
      auto options = std::make_unique<torch::optim::AdamWOptions>(c_.training.rate);
      options->betas({c_.training.beta1, c_.training.beta2}).weight_decay(decay);
      return torch::optim::OptimizerParamGroup(std::move(list), std::move(options));
    };
    return {group(matrices, c_.training.weight_decay), group(others, 0)};
  }

  double rate() const {
    const double at = static_cast<double>(step_ + 1), warm = std::min(1.0, at / std::max(1, c_.training.warmup));
    if (c_.training.schedule == "constant") return c_.training.rate * warm;
    constexpr double kFloor = 0.1;
    return c_.training.rate * warm * (kFloor + (1 - kFloor) * (1 + std::cos(M_PI * at / static_cast<double>(n_step_))) / 2);
  }

  Tensor batch(int64_t index) const {
    Tensor tokens = torch::empty({c_.training.batch, c_.data.context + 1}, torch::kLong);
    packing_.batch(index, c_.training.batch, c_.data.context, {tokens.data_ptr<int64_t>(), static_cast<size_t>(tokens.numel())});
    return tokens;
  }

  double one_step() {
    for (auto& group : optimizer_.param_groups()) static_cast<torch::optim::AdamWOptions&>(group.options()).lr(rate());
    optimizer_.zero_grad();
    double sum = 0;
    for (int a = 0; a < c_.training.accumulate; ++a) {
      const int64_t index = step_ * c_.training.accumulate + a;
      const Tensor tokens = batch(index);
      Tensor loss;
      {
        const Autocast autocast(c_.training.precision == "bf16");
        loss = c_.model.diffusion ? diffusion_loss(model_, tokens, mask_token_, 0, (int64_t{c_.training.seed} << 32) + index)
                                  : next_token_loss(model_(tokens.narrow(1, 0, c_.data.context)), tokens, c_.model.prefix);
      }
      sum += loss.item<double>();
      if (const Tensor balance = model_->balance(); balance.defined()) loss = loss + c_.model.balance * balance;
      (loss / static_cast<double>(c_.training.accumulate)).backward();
    }
    const double length = c_.training.clip > 0 ? torch::nn::utils::clip_grad_norm_(model_->parameters(), c_.training.clip) : 0;
    optimizer_.step();
    const double loss = sum / c_.training.accumulate;
    check_numbers(loss + length);
    return loss;
  }

  void check_numbers(double of_them) const {
    if (!std::isfinite(of_them))
      throw InputError(fmt::format("step {} gives numbers that are none any more; train in a new folder with a smaller training.rate or a longer training.warmup", step_));
  }

  void measure_at(const std::vector<int64_t>& steps) {
    if (!std::ranges::binary_search(steps, step_) || (!curve_.empty() && curve_.back().step >= step_)) return;
    if (!probe_.defined()) {
      probe_ = torch::empty({c_.training.probe, c_.data.context + 1}, torch::kLong);
      packing_.validation(0, c_.training.probe, c_.data.context, {probe_.data_ptr<int64_t>(), static_cast<size_t>(probe_.numel())});
    }
    Measurement m = measure(model_, probe_, mask_token_);
    check_numbers(m.validation);
    m.step = step_, m.tokens = step_ * tokens_of_step();
    if (n_loss_ > 0) loss_ = loss_sum_ / static_cast<double>(n_loss_);
    m.loss = n_loss_ > 0 ? loss_ : m.validation;
    loss_sum_ = 0, n_loss_ = 0;
    if (c_.training.exports) export_step();
    curve_.push_back(m);
    std::string lines;
    for (const Measurement& each : curve_) lines += to_json_line(each);
    put_whole(path("telemetry.jsonl"), lines);
  }

  // The folder is of this run, or becomes it. At a constant rate a run of fewer tokens is the start of a longer one.
  void claim() const {
    const std::string mine = to_toml(c_);
    if (fs::exists(path("run.toml"))) {
      RunConfig there = read_run_config(path("run.toml")).config;
      if (there.training.schedule == "constant") there.training.tokens = std::max(there.training.tokens, c_.training.tokens);
      if (to_toml(there) != mine)  // keys that came later have their defaults
        throw InputError(fmt::format("'{}' holds another run; give a folder of its own, or the configuration that is in {}", folder_, path("run.toml")));
    }
    put_whole(path("run.toml"), mine);
  }

  // Unfinished files of processes that were killed: the folder is ours alone.
  static void remove_leftovers(const std::string& folder) {
    std::error_code ignored;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored))
      if (AtomicFile::is_unfinished(entry.path().filename().string())) fs::remove(entry.path(), ignored);
  }

  void save() {
    torch::serialize::OutputArchive archive, weights, moments;
    model_->save(weights);
    optimizer_.save(moments);
    archive.write("model", weights);
    archive.write("optimizer", moments);
    const std::string& sum = data_.sha256();
    archive.write("data", torch::from_blob(const_cast<char*>(sum.data()), {static_cast<int64_t>(sum.size())}, torch::kByte).clone());
    archive.write("step", torch::tensor(step_));
    archive.write("loss", torch::tensor({loss_sum_, static_cast<double>(n_loss_), loss_}, torch::kDouble));
    std::ostringstream bytes;
    archive.save_to(bytes);
    put_whole(path("checkpoint.pt"), bytes.str());
  }

  void load() {
    if (!fs::exists(path("checkpoint.pt"))) return;
    read_checkpoint(path("checkpoint.pt"), [&](torch::serialize::InputArchive& archive) {
      check_data(archive, data_, c_);
      torch::serialize::InputArchive weights, moments;
      archive.read("model", weights);
      archive.read("optimizer", moments);
      model_->load(weights);
      optimizer_.load(moments);
      Tensor step, loss;
      archive.read("step", step);
      archive.read("loss", loss);
      step_ = step.item<int64_t>();
      loss_sum_ = loss[0].item<double>(), n_loss_ = std::llround(loss[1].item<double>()), loss_ = loss[2].item<double>();
    });
    for (const Measurement& m : read_telemetry(folder_))
      if (m.step <= step_) curve_.push_back(m);
  }

  void write_gguf_to(const std::string& file) { write_gguf(model_, data_, /*adds_bos=*/packing_.starts_with_bos(), c_.data.context, file); }

  // The model as it is measured, and what it is measured on.
  void export_step() {
    io::make_folder(path("steps"));
    write_gguf_to(path(fmt::format("steps/step-{}.gguf", step_)));
    if (fs::exists(path("probe.json"))) return;
    nlohmann::json prompts;
    const auto ids = probe_.accessor<int64_t, 2>();
    for (int64_t p = 0; p < ids.size(0); ++p)
      for (int64_t i = 0; i < c_.data.context; ++i) prompts[p].push_back(ids[p][i]);
    put_whole(path("probe.json"), prompts.dump() + "\n");
  }

  const RunConfig c_;
  const std::string folder_;
  std::optional<FolderLock> lock_;
  TokenFile data_;
  Packing packing_;
  LanguageModel model_;
  torch::optim::AdamW optimizer_;
  Tensor mask_token_, probe_;
  int64_t step_ = 0, n_step_ = 0, n_loss_ = 0;
  double loss_sum_ = 0, loss_ = 0, n_flop_ = 0;
  std::vector<Measurement> curve_;
};

}  // namespace

std::vector<std::string> notes_of_machine() {
  std::vector<std::string> notes;
  if (const std::string blas = blas_library(); !blas.empty() && blas.find("openblas") == std::string::npos && blas.find("mkl") == std::string::npos)
    notes.push_back(fmt::format("products go to '{}', which is some 30 times slower than OpenBLAS; install libopenblas0-openmp", blas));
  return notes;
}

std::vector<std::string> notes_of(const RunConfig& config) {
  std::vector<std::string> notes = notes_of_machine();
  if (const std::string refused = why_not_gguf(config.model); !refused.empty()) notes.push_back("no GGUF is written: " + refused);
  return notes;
}

int threads_of(const TrainingConfig& config) { return config.threads > 0 ? config.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

Outcome train(const RunConfig& config, const std::string& folder, const Watch& watch) {
  at::set_num_threads(threads_of(config.training));
  return Trainer(config, folder).run(watch);
}

LoadedRun load_run(const std::string& folder) {
  const std::string file = (fs::path(folder) / "run.toml").string();
  const auto [config, lines] = read_run_config(file);
  auto data = open_data(config, file, lines);
  LanguageModel model = made_model(config, *data);
  const std::string checkpoint = (fs::path(folder) / "checkpoint.pt").string();
  if (!fs::exists(checkpoint)) throw InputError(fmt::format("'{}' has no checkpoint.pt; give the folder of a run that has trained", folder));
  read_checkpoint(checkpoint, [&](torch::serialize::InputArchive& archive) {
    check_data(archive, *data, config);
    torch::serialize::InputArchive weights;
    archive.read("model", weights);
    model->load(weights);
  });
  model->eval();
  return {config, std::move(data), model};
}

std::vector<Measurement> read_telemetry(const std::string& folder) {
  const std::string path = (fs::path(folder) / "telemetry.jsonl").string();
  std::ifstream file(path);
  if (!file) throw InputError(fmt::format("cannot read '{}'; give the folder of a run", path));
  std::vector<Measurement> curve;
  for (std::string line; std::getline(file, line);) curve.push_back(from_json_line(line));
  return curve;
}

}  // namespace sinkscope::train
