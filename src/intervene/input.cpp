#include "intervene/input.h"

#include <algorithm>
#include <numeric>

#include "sinkscope/error.h"

namespace sinkscope::intervene {

EditedPrompt apply(std::span<const Edit> edits, std::span<const int> prompt, int bos) {
  EditedPrompt p{.tokens = {prompt.begin(), prompt.end()}, .origin = std::vector<int>(prompt.size())};
  std::iota(p.origin.begin(), p.origin.end(), 0);
  for (const Edit& e : edits) {
    const int at = std::min(e.instead, static_cast<int>(p.tokens.size()) - 1);
    switch (e.kind) {
      case Edit::Kind::no_bos:
        if (at == 0 && p.tokens[0] != bos) throw InputError("--edit no-bos: a prompt has no BOS to leave away; use it with prompts that start with one (--bos always)");
        if (p.tokens.size() < 3) throw InputError("--edit no-bos: a prompt of 2 tokens leaves nothing to predict; give longer prompts");
        p.tokens.erase(p.tokens.begin() + at);
        p.origin.erase(p.origin.begin() + at);
        break;
      case Edit::Kind::first_token: p.tokens[at] = e.token; break;
      case Edit::Kind::copies:
        p.tokens.insert(p.tokens.begin() + at, e.count - 1, p.tokens[at]);
        p.origin.insert(p.origin.begin() + at, e.count - 1, -1);
        break;
      case Edit::Kind::move: {
        const int to = std::min(e.to, static_cast<int>(p.tokens.size()) - 1);
        const auto shift = [&](std::vector<int>& list) {
          const int moved = list[at];
          list.erase(list.begin() + at);
          list.insert(list.begin() + to, moved);
        };
        shift(p.tokens);
        shift(p.origin);
        break;
      }
      default: break;
    }
  }
  return p;
}

}  // namespace sinkscope::intervene
