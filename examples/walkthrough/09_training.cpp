// Chapter 9 of the walkthrough: docs/walkthrough/09-training.md.
// A text that only memory can read: blocks "c-" "--" "--" "C-", each with a letter of its own. A
// model with slots learns it, one without cannot; then we look at what the slots do.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "memformer/data/bytes.h"
#include "memformer/data/text_stream.h"
#include "memformer/model/memformer.h"
#include "memformer/replay/mrbp.h"
#include "nn/optimizer.h"
#include "nn/parameters.h"
#include "tensor/cpu/parallel.h"
#include "tensor/math.h"

namespace {

using namespace mf;

constexpr std::int64_t kRows = 16, kLetters = 8;
constexpr std::uint64_t kSteps = 800;

std::string text_of_blocks() {
  std::string text;
  for (std::uint64_t i = 0; i < kRows * (kSteps + 1); ++i) {
    const auto letter = static_cast<char>(RngKey{2}.below(kLetters, i));
    text += static_cast<char>('a' + letter) + std::string("-----");
    text += static_cast<char>('A' + letter) + std::string("-");
  }
  return text;
}

struct Trained {
  Memformer model;
  State memory;
  double loss;  ///< nats on the letter to be remembered
};

Trained train(std::int64_t slots) {
  const std::string text = text_of_blocks();
  const RngKey key{1};
  // README begins
  ModelConfig config;  // bytes in, bytes out
  config.width = 32;
  config.encoder_layers = config.decoder_layers = 1;
  config.feed_forward = 64;
  config.segment = 2;
  config.slots = slots;       // 4, or 0: no memory
  config.dtype = DType::f64;  // so that every machine prints the same digits

  Memformer model(config, key.at("model"));
  std::vector<Parameter> parameters = model.parameters();
  Adam adam(parameters, AdamOptions{});
  TextStream stream(std::vector{text}, {.batch = kRows, .segment_length = config.segment});
  State memory = model.initial_state(kRows);
  double loss = 0.0;
  for (std::uint64_t step = 1; step <= kSteps; ++step) {
    std::vector<Segment> window;  // four segments: gradients flow back through four memories
    while (window.size() < 4) window.push_back(*stream.next());
    zero_grad(parameters);
    const WindowResult result = mrbp(model, window, memory, key.at("step").at(step));
    adam.step(3e-3, clip_factor(global_gradient_norm(parameters), 1.0));
    memory = result.states.back();  // the next window reads on with this memory
    loss = result.segment_losses[2] / kRows;
    if (step % 200 == 0) std::printf("  step %d: %.2f nats\n", static_cast<int>(step), loss);
  }
  // README ends
  return {model, memory, loss};
}

/// How much each slot attends to itself when written, eq. W1 to W4; [rows, heads, slots, 1].
Tensor self_weights(const Memformer& model, const Tensor& memory, const Tensor& encoded) {
  const ModelConfig& c = model.config();
  const std::vector<Parameter> parameters = model.parameters();
  const auto projected = [&](const Tensor& x, const std::string& layer) {
    const auto p = std::ranges::find(parameters, "writer." + layer + ".weight", &Parameter::name);
    const Shape by_head{x.size(0), x.size(1), c.heads, c.width / c.heads};
    return matmul(x, p->value()).reshape(by_head).permute({0, 2, 1, 3});
  };
  const Tensor query = projected(memory, "query");
  const Tensor to_itself = sum(mul(query, projected(memory, "key")), {3}, true);
  const Tensor to_tokens = matmul(query, projected(encoded, "key").transpose());
  const double factor = 1.0 / std::sqrt(static_cast<double>(c.width / c.heads)) / c.temperature;
  return softmax(affine(concat(std::vector{to_itself, to_tokens}, 3), factor)).slice(3, 0, 1);
}

/// Row i gets what row i - 1 had.
Tensor turned(const Tensor& memory) {
  const Tensor last = memory.slice(0, kLetters - 1, kLetters);
  return concat(std::vector{last, memory.slice(0, 0, kLetters - 1)}, 0);
}

}  // namespace

int main() {
  set_threads(1);  // the model is so small that a second thread costs more than it brings
  std::printf("without memory\n");
  const double guessed = train(0).loss;
  std::printf("with 4 slots\n");
  const Trained trained = train(4);
  const Memformer& model = trained.model;
  bool right = std::abs(guessed - std::log(16.0)) < 0.2 && trained.loss < 0.1;
  // A block with another letter in each of eight rows.
  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  const auto encoded = [&](char first, const Tensor& memory) {
    std::vector<std::int32_t> bytes(kLetters * 2, '-');
    for (std::int32_t row = 0; row < kLetters && first != '-'; ++row)
      bytes[static_cast<std::size_t>(2 * row)] = first + row;
    return model.encode(pass, from_host(bytes, {kLetters, 2}), {}, constant(memory)).value;
  };
  // The first byte behind "--" for rows with this memory.
  const auto answers = [&](const Tensor& memory) {
    const Var read = constant(encoded('-', memory));
    const Tensor begin = full({kLetters, 1}, kBeginToken, DType::i32);
    const Tensor logits = model.decode(pass, begin, read, {}).value;
    return decode_bytes(argmax(logits, 2).to_vector<std::int32_t>());
  };

  Tensor memory = trained.memory[0].value.slice(0, 0, kLetters), asked;
  std::printf("weight of a slot on itself, by head; cosine between slots 0 and 3\n");
  for (int segment = 0; segment < 4; ++segment) {
    const char first = "a--A"[segment];
    if (segment == 2) asked = memory;
    const Tensor E = encoded(first, memory);
    const Tensor own = affine(sum(self_weights(model, memory, E), {0, 2, 3}), 1.0 / (4 * kLetters));
    const std::vector<double> w = own.to_vector<double>();
    memory = model.write(pass, constant(memory), constant(E), {})[0].value.value;
    const Tensor unit = normalize(memory, 1.0, 0.0).y;
    const double cosine = sum(mul(unit.slice(1, 0, 1), unit.slice(1, 3, 4))).item() / kLetters;
    std::printf("  reading \"%c-\":  %.2f  %.2f  %.2f  %.2f;  %.2f\n", first, w[0], w[1], w[2],
                w[3], cosine);
  }
  std::printf("letters read: abcdefgh; answers: %s\n", answers(asked).c_str());
  const Tensor fresh = model.initial_state(kLetters)[0].value;
  std::printf("answers with the initial memory:      %s\n", answers(fresh).c_str());
  std::printf("answers with the row above's memory:  %s\n", answers(turned(asked)).c_str());
  right &= answers(asked) == "ABCDEFGH" && answers(turned(asked)) == "HABCDEFG";
  for (const int count : {1, 3}) {
    Tensor mixed = asked.clone();
    mixed.slice(1, 0, count).copy_(turned(asked).slice(1, 0, count));
    std::printf("answers with %d of its 4 slots:        %s\n", count, answers(mixed).c_str());
  }
  return right ? 0 : 1;
}
