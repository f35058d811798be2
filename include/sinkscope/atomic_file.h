// Files that appear whole or not at all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sinkscope {

// Written beside its place under a temporary name, then renamed. Destroyed before commit(), it leaves nothing.
// All failures throw InputError with the path and the system's reason.
class AtomicFile {
 public:
  // Opens at once, so that a place that cannot be written shows before long work.
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);                     // at the end
  void write_at(uint64_t offset, std::string_view bytes);
  void commit();
  const std::string& unfinished() const { return temporary_; }  // where its bytes are until then
  static bool is_unfinished(std::string_view name);  // a temporary name, of whatever process

 private:
  friend void commit_together(std::span<AtomicFile* const> files);
  void finish();  // all bytes are on the disk
  void appear();

  [[noreturn]] void fail(const char* what) const;

  std::string path_, temporary_;
  int file_ = -1;
  int slot_ = -1;  // in the list of unfinished files
};

// Names change only when every file's bytes are on the disk: what can fail has failed by then.
void commit_together(std::span<AtomicFile* const> files);

// Deletes the temporary files of this process. Safe in a signal handler.
void remove_unfinished_files() noexcept;

}  // namespace sinkscope
