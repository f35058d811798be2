// The two kinds of failure. The library throws them; it neither prints nor ends the process.
#pragma once

#include <stdexcept>

namespace sinkscope {

// Bad input or a bad machine: one sentence saying what was found, what was expected and what to do.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Wrong use: an option or an argument that no input could make right.
class UsageError : public InputError {
 public:
  using InputError::InputError;
};

// A fault of sinkscope itself.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

}  // namespace sinkscope
