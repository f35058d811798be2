// llama.cpp's samplers: the next token from logits.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

struct llama_sampler;

namespace sinkscope::session {

struct Sampling {
  float temperature, top_p, min_p;
  uint32_t seed;
};

class Sampler {
 public:
  explicit Sampler(const Sampling& sampling);
  ~Sampler();
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  // The token behind `position`, by chance that depends on seed and position alone: so a stream can be taken up again.
  int pick(std::span<const float> logits, int64_t position);

 private:
  Sampling sampling_;
  llama_sampler* narrow_;
};

}  // namespace sinkscope::session
