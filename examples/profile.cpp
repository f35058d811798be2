// The sink rate of every layer of a model: example_profile MODEL.gguf TEXT-FILE...
#include <cstdio>
#include <exception>

#include <sinkscope/profile.h>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: example_profile MODEL.gguf TEXT-FILE...\n");
    return 2;
  }
  sinkscope::ProfileOptions options;
  options.model = argv[1];
  options.texts.assign(argv + 2, argv + argc);
  options.length = 64;

  try {
    const sinkscope::Profile profile = sinkscope::profile(options);
    std::printf("%s\n", profile.answer().c_str());
    for (const sinkscope::LayerProfile& layer : profile.layers)
      if (layer.measured) std::printf("layer %2d: %6.2f %%\n", layer.layer, layer.sink_rate_first);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "example_profile: %s\n", e.what());
    return 1;
  }
}
