#include "terminal.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace sinkscope::cli {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int width_of(int file, int otherwise) {
  winsize size{};
  return ioctl(file, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : otherwise;
}

// Bytes of the UTF-8 character at the start of `text`; 0: it is broken or a control character.
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7f;
  const size_t n = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xc2 && lead < 0xe0 ? 2 : 0;
  for (size_t i = 1; i < n; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // C1 controls, and marks that turn the direction of writing.
  if (lead == 0xc2 && byte(1) < 0xa0) return 0;
  if (lead == 0xe2 && ((byte(1) == 0x80 && byte(2) >= 0xaa && byte(2) <= 0xae) || (byte(1) == 0x81 && byte(2) >= 0xa6 && byte(2) <= 0xa9))) return 0;
  return n;
}

// Characters from U+3000 on, Chinese, Japanese, Korean and emoji, take two columns (a few narrow ones among them too).
int columns_of(std::string_view character) { return static_cast<unsigned char>(character[0]) >= 0xe3 ? 2 : 1; }

}  // namespace

Terminal Terminal::of_stdout() {
  Terminal t;
  const char* no_colour = std::getenv("NO_COLOR");
  const char* kind = std::getenv("TERM");
  const bool terminal = isatty(STDOUT_FILENO);
  t.colour = terminal && !(no_colour && *no_colour) && !(kind && std::string_view(kind) == "dumb");
  t.wraps = terminal;
  if (terminal) t.width = width_of(STDOUT_FILENO, t.width);
  constexpr int kNarrow = 40;
  if (t.width < kNarrow) t.colour = false;
  return t;
}

std::string wrapped(std::string_view text, int width) {
  std::string lines;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const bool coloured = line.find('\x1b') != std::string_view::npos;
    while (!coloured) {
      size_t end = 0;
      for (int column = 0; end < line.size();) {
        const size_t n = std::max<size_t>(character_length(line.substr(end)), 1);
        column += columns_of(line.substr(end, n));
        if (column > width) break;
        end += n;
      }
      if (end >= line.size()) break;
      const size_t space = line.rfind(' ', end);
      const size_t cut = space == std::string_view::npos || line.find_first_not_of(' ') > space ? end : space;
      lines.append(line.substr(0, cut)) += '\n';
      line.remove_prefix(cut);
      if (cut == space) line.remove_prefix(1);
    }
    lines.append(line) += '\n';
  }
  return lines;
}

std::string counted(int64_t n, std::string_view noun) { return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s"); }

std::string printable(std::string_view text) {
  std::string safe;
  while (!text.empty()) {
    if (const size_t n = character_length(text)) {
      safe += text.substr(0, n);
      text.remove_prefix(n);
      continue;
    }
    const unsigned char c = text[0];
    safe += c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "\\r" : fmt::format("\\x{:02x}", c);
    text.remove_prefix(1);
  }
  return safe;
}

void print_error_line(std::string_view sentence) {
  std::fputs(("sinkscope: " + printable(sentence) + "\n").c_str(), stderr);
}

void print_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) print_error_line("note: " + note);
}

std::string shaded(double value, std::string_view text, bool colour) {
  if (!colour) return std::string(text);
  struct Stop {
    double r, g, b;
  };
  // Even in lightness, and apart for the colour-blind (after matplotlib's inferno, by eye).
  static constexpr std::array<Stop, 5> kStops = {{{8, 6, 24}, {88, 16, 110}, {188, 55, 84}, {249, 142, 9}, {252, 255, 164}}};
  const double at = std::clamp(std::isfinite(value) ? value : 0, 0.0, 1.0) * (kStops.size() - 1);
  const size_t i = std::min(static_cast<size_t>(at), kStops.size() - 2);
  const auto mix = [&](double Stop::*c) {
    return static_cast<int>(std::lround(kStops[i].*c + (at - static_cast<double>(i)) * (kStops[i + 1].*c - kStops[i].*c)));
  };
  return fmt::format("\x1b[48;2;{};{};{}m{}\x1b[0m", mix(&Stop::r), mix(&Stop::g), mix(&Stop::b), text);
}

namespace {

int height_of(int file) {
  winsize size{};
  return ioctl(file, TIOCGWINSZ, &size) == 0 ? size.ws_row : 0;
}

// Saves and restores the cursor around; the region that scrolls is the whole screen again.
constexpr std::string_view kWholeScreen = "\x1b""7\x1b[r\x1b""8\x1b[J";
std::atomic<bool> last_line_taken = false;

}  // namespace

StatusLine::StatusLine() {
  constexpr int kLowest = 4;  // lines
  const char* kind = std::getenv("TERM");
  if (!isatty(STDERR_FILENO)) return;
  place_ = !isatty(STDOUT_FILENO) ? Place::alone : kind && std::string_view(kind) != "dumb" && height_of(STDERR_FILENO) >= kLowest ? Place::last : Place::nowhere;
}

StatusLine::~StatusLine() {
  if (place_ == Place::alone) std::fputs("\r\x1b[K", stderr);
  std::fflush(stdout);
  give_back();
}

void StatusLine::give_back() noexcept {
  if (last_line_taken.exchange(false)) (void)!write(STDERR_FILENO, kWholeScreen.data(), kWholeScreen.size());
}

// Text scrolls above the last line. First one line down and up again in the same column, so that the cursor is not on it; setting the
// region moves the cursor.
void StatusLine::take_last_line() {
  const int n_line = height_of(STDERR_FILENO);
  if (last_line_taken && n_line == n_line_) return;
  n_line_ = n_line;
  last_line_taken = true;
  std::fputs(fmt::format("\x1b""D\x1b[A\x1b""7\x1b[1;{}r\x1b""8", n_line - 1).c_str(), stderr);
}

void StatusLine::show(const std::string& line) {
  if (place_ == Place::nowhere) return;
  const std::string shown = line.substr(0, std::max(width_of(STDERR_FILENO, 80) - 1, 0));
  if (place_ == Place::last) take_last_line();
  std::fputs(place_ == Place::alone ? ("\r\x1b[K" + shown).c_str() : fmt::format("\x1b""7\x1b[{};1H\x1b[K\x1b[7m{}\x1b[0m\x1b""8", n_line_, shown).c_str(), stderr);
  std::fflush(stderr);
}

ProgressBar::ProgressBar() : active_(isatty(STDERR_FILENO)), start_(now()) {}

ProgressBar::~ProgressBar() {
  if (active_ && last_ > 0) std::fputs("\r\x1b[K", stderr);
}

void ProgressBar::show(const std::string& what, int64_t done, int64_t total) {
  constexpr double kPause = 0.1;  // seconds between two pictures
  const double time = now();
  if (!active_ || total <= 0 || time - last_ < kPause) return;
  last_ = time;
  constexpr int kWidth = 30;
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const int filled = static_cast<int>(share * kWidth);
  const double elapsed = time - start_, left = share > 0 ? elapsed / share - elapsed : 0;
  std::string line = fmt::format("{:<8} {:3.0f} % [{}{}]  {:.0f} tokens/s  {:.0f} s left", what, 100 * share, std::string(filled, '#'),
                                 std::string(kWidth - filled, '.'), elapsed > 0 ? static_cast<double>(done) / elapsed : 0, left);
  line.resize(std::min<size_t>(line.size(), width_of(STDERR_FILENO, 80) - 1));
  std::fputs(("\r\x1b[K" + line).c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace sinkscope::cli
