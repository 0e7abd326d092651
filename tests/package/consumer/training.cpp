#include <cstdio>

#include "memformer/data/gzip.h"
#include "memformer/data/text_stream.h"
#include "memformer/model/memformer.h"
#include "memformer/replay/mrbp.h"
#include "memformer/train/config.h"

// One window through every library: kernels and threads, JSON, fmt, zlib.
int main() {
  using namespace mf;
  const RunConfig config = run_config_from_json(
      R"({"model": {"width": 8, "heads": 2, "encoder_layers": 1, "decoder_layers": 1,
                    "feed_forward": 16, "segment": 4, "slots": 2}})");
  const Memformer model(config.model, RngKey{1});
  TextStream stream(std::vector<std::string>{"so it can be found and linked"},
                    {.batch = 2, .segment_length = 4});
  const std::vector<Segment> window{*stream.next(), *stream.next()};
  const WindowResult result = mrbp(model, window, model.initial_state(2), RngKey{2});
  std::printf("loss %.4f, %zu parameters\n", result.mean_loss(), model.parameters().size());
  try {
    read_gzip("no such file");
    return 1;
  } catch (const Error& error) {
    std::printf("an error, as it should be: %s\n", error.what());
  }
  return result.mean_loss() > 4.0 && result.mean_loss() < 8.0 ? 0 : 1;
}
