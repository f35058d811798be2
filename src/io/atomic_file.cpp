#include "sinkscope/atomic_file.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sinkscope/error.h"

namespace sinkscope {
namespace {

constexpr std::string_view kPrefix = ".sinkscope-";

// Names that a signal handler may read: written before `used` is set.
struct Unfinished {
  std::atomic<bool> taken{false}, used{false};
  char name[PATH_MAX];
};
std::array<Unfinished, 16> unfinished;

int remember(const std::string& name) {
  for (size_t i = 0; i < unfinished.size(); ++i) {
    if (name.size() >= PATH_MAX || unfinished[i].taken.exchange(true)) continue;
    std::strcpy(unfinished[i].name, name.c_str());
    unfinished[i].used = true;
    return static_cast<int>(i);
  }
  return -1;
}

void forget(int slot) {
  if (slot < 0) return;
  unfinished[slot].used = false;
  unfinished[slot].taken = false;
}

}  // namespace

void remove_unfinished_files() noexcept {
  for (const Unfinished& u : unfinished)
    if (u.used) ::unlink(u.name);
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::file_status status = fs::status(path_, ignored);  // behind links
  if (fs::exists(status) && !fs::is_regular_file(status))
    throw InputError(fmt::format("cannot write '{}': it is {}; give the name of a file", path_, fs::is_directory(status) ? "a folder" : "no regular file"));
  // A link stays a link: its target is what is replaced.
  constexpr int kMostLinks = 40;  // Linux's own limit
  for (int n = 0; fs::is_symlink(path_, ignored); ++n) {
    if (n == kMostLinks) throw InputError(fmt::format("cannot write '{}': its links lead nowhere; give the name of a file", path_));
    const fs::path target = fs::read_symlink(path_, ignored);
    path_ = target.is_absolute() ? target : fs::path(path_).parent_path() / target;
  }
  // Beside its place, and no longer than a name may be.
  temporary_ = (fs::path(path_).parent_path() / fmt::format("{}XXXXXX", kPrefix)).string();
  file_ = ::mkstemp(temporary_.data());
  if (file_ < 0) fail("cannot write");
  slot_ = remember(temporary_);
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::fchmod(file_, fs::exists(status) ? static_cast<mode_t>(status.permissions()) : 0666 & ~mask);
}

AtomicFile::~AtomicFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
  forget(slot_);
}

bool AtomicFile::is_unfinished(std::string_view name) { return name.starts_with(kPrefix) && name.size() == kPrefix.size() + 6; }

void AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(file_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot write");
    bytes.remove_prefix(n);
  }
}

void AtomicFile::write_at(uint64_t offset, std::string_view bytes) {
  if (::lseek(file_, static_cast<off_t>(offset), SEEK_SET) < 0) fail("cannot write");
  write(bytes);
}

void AtomicFile::commit() {
  finish();
  appear();
}

void AtomicFile::finish() {
  if (::fsync(file_) != 0) fail("cannot finish");
}

void AtomicFile::appear() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot finish");
  ::close(file_);
  file_ = -1;
  forget(slot_);
}

void commit_together(std::span<AtomicFile* const> files) {
  for (AtomicFile* file : files) file->finish();
  sigset_t all, before;  // no interruption between the names
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  try {
    for (AtomicFile* file : files) file->appear();
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void AtomicFile::fail(const char* what) const {
  throw InputError(fmt::format("{} '{}' ({}); give another place or make room", what, path_, std::strerror(errno)));
}

}  // namespace sinkscope
