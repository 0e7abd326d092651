// A Memformer learns a random word that is repeated for ever: the loss falls from about 6 nats a
// byte to nearly nothing.

#include <cstdio>
#include <string>
#include <vector>

#include "memformer/data/text_stream.h"
#include "memformer/model/memformer.h"
#include "memformer/replay/mrbp.h"
#include "nn/optimizer.h"
#include "nn/parameters.h"

int main() {
  using namespace mf;
  const RngKey key{1};
  std::string word, text;
  for (std::uint64_t i = 0; i < 50; ++i)
    word += static_cast<char>('a' + static_cast<char>(key.at("word").below(26, i)));
  for (int i = 0; i < 100; ++i) text += word;

  // README begins
  ModelConfig config;  // bytes in, bytes out
  config.width = 32;
  config.encoder_layers = config.decoder_layers = 1;
  config.feed_forward = 64;
  config.segment = 8;
  config.slots = 4;

  Memformer model(config, key.at("model"));
  std::vector<Parameter> parameters = model.parameters();
  Adam adam(parameters, AdamOptions{});
  TextStream stream(std::vector{text}, {.batch = 8, .segment_length = config.segment});
  State memory = model.initial_state(8);
  double loss = 0.0;
  for (std::uint64_t step = 1; step <= 200; ++step) {
    std::vector<Segment> window;  // four segments: gradients flow back through four memories
    while (window.size() < 4) window.push_back(*stream.next());
    zero_grad(parameters);
    const WindowResult result = mrbp(model, window, memory, key.at("step").at(step));
    adam.step(3e-3, clip_factor(global_gradient_norm(parameters), 1.0));
    memory = result.states.back();  // the next window reads on with this memory
    loss = result.mean_loss();
    if (step % 25 == 0)
      std::printf("step %3d  loss %.4f nats per byte\n", static_cast<int>(step), loss);
  }
  // README ends
  return loss < 0.5 ? 0 : 1;
}
