// What the terminal can show: width, colour, a progress bar; and text that is safe to print.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sinkscope::cli {

// Of standard output.
struct Terminal {
  bool colour = false;  // a terminal that is not narrow, and NO_COLOR is not set
  int width = 80;
  bool wraps = false;   // a terminal: longer lines are broken at its width

  static Terminal of_stdout();
};

// Lines without colour that are longer than `width` characters, broken at spaces where there are any.
std::string wrapped(std::string_view text, int width);

// "1 token", "2 tokens".
std::string counted(int64_t n, std::string_view noun);

// Control characters and broken UTF-8 as escapes: a token may hold anything.
std::string printable(std::string_view text);

// "sinkscope: sentence" on standard error, safe to print.
void print_error_line(std::string_view sentence);

// A shade for a value of 0 to 1: `text` on a background from black over violet and orange to yellow, or as it is.
std::string shaded(double value, std::string_view text, bool colour);

// One line on the terminal that says how things stand beside text that flows: the last line, with the text above it, or the whole of
// standard error where the text goes elsewhere. Nothing where standard error is no terminal.
class StatusLine {
 public:
  StatusLine();
  ~StatusLine();
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  void show(const std::string& line);
  // The terminal as it was; safe in a signal handler.
  static void give_back() noexcept;

 private:
  void take_last_line();

  enum class Place { nowhere, alone, last } place_ = Place::nowhere;
  int n_line_ = 0;  // of the terminal, when the last one was taken
};

// On standard error and on a terminal only; clears itself.
class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();
  void show(const std::string& what, int64_t done, int64_t total);

 private:
  bool active_;
  double start_, last_ = 0;
};

// The result of `work`, which is given a function to tell its progress to; a bar shows it meanwhile.
template <class Work>
auto behind_a_bar(const Work& work) {
  ProgressBar bar;
  return work([&](const std::string& what, int64_t done, int64_t total) { bar.show(what, done, total); });
}
void print_notes(const std::vector<std::string>& notes);

}  // namespace sinkscope::cli
