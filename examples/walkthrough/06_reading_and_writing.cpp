// Chapter 6 of the walkthrough: docs/walkthrough/06-reading-and-writing.md.
// How tokens read the slots and how the slots are written, by the model's own classes and beside
// them by hand.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "autograd/ops.h"
#include "memformer/model/memory.h"
#include "memformer/model/reader.h"
#include "memformer/model/writer.h"

namespace {

using namespace mf;

ModelConfig small_config(std::int64_t width, std::int64_t slots) {
  ModelConfig config;
  config.width = width;
  config.slots = slots;
  config.heads = 1;
  config.memory_radius = 1.0;
  config.dtype = DType::f64;
  return config;
}

Tensor identity2() { return from_host({1.0, 0.0, 0.0, 1.0}, {2, 2}); }

/// Length 1 in each row, times `radius`.
Tensor slots_of(std::int64_t slots, std::int64_t width, double radius) {
  return normalize(normal({1, slots, width}, RngKey{4}, 0.0, 1.0, DType::f64), radius, 0.0).y;
}

/// The weight of the slot that a token reads most, mean over the tokens: eq. R1 to R3 spelled out.
/// Also checks the outcome against the reader.
double largest_read_weight(ReadNorm norm, double radius, bool& right) {
  ModelConfig config = small_config(64, 8);
  config.memory_read_norm = norm;
  const MemoryReader reader(config, RngKey{3});
  const Tensor tokens = normal({1, 16, 64}, RngKey{5}, 0.0, 1.0, DType::f64);
  const Tensor slots = slots_of(8, 64, radius);

  const auto normed = [&](const Tensor& x) {
    return layer_norm(x, reader.norm.gain.value(), reader.norm.bias.value(), 1e-5).y;
  };
  const auto projected = [](const Linear& layer, const Tensor& x) {
    return linear(x, layer.weight.value(), layer.bias.value());
  };
  const MultiHeadAttention& read = reader.attention;
  const Tensor memory = norm == ReadNorm::shared ? normed(slots) : slots;
  const Tensor q = projected(read.query, normed(tokens));
  const Tensor k = projected(read.key, memory), v = projected(read.value, memory);
  const Tensor weights = softmax(matmul(q, k.transpose(), 1.0 / std::sqrt(64.0)));
  const std::vector<double> by_hand =
      projected(read.output, matmul(weights, v)).to_vector<double>();

  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  const std::vector<double> by_reader =
      reader(pass, constant(tokens), constant(slots)).value.to_vector<double>();
  for (std::size_t i = 0; i < by_hand.size(); ++i)
    right &= std::abs(by_hand[i] - by_reader[i]) < 1e-12;
  return mean(max(weights, 2).values).item();
}

}  // namespace

int main() {
  bool right = true;
  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};

  // Reading: every token sees every slot. Equal weights would be 1 / 8 = 0.125.
  std::printf("reading 8 slots: weight of the slot read most\n");
  std::printf("  slots of length 1, read as they are     %.3f\n",
              largest_read_weight(ReadNorm::none, 1.0, right));
  std::printf("  slots of length 8, read as they are     %.3f\n",
              largest_read_weight(ReadNorm::none, 8.0, right));
  std::printf("  slots of length 1, LayerNorm on read    %.3f\n",
              largest_read_weight(ReadNorm::shared, 1.0, right));

  // Writing: one slot m = (1, 0), two tokens (0, 1) and (1, 0), all projections the identity.
  const Tensor memory = from_host({1.0, 0.0}, {1, 1, 2});
  const Tensor tokens = from_host({0.0, 1.0, 1.0, 0.0}, {1, 2, 2});
  for (const double temperature : {1.0, 0.25}) {
    ModelConfig config = small_config(2, 1);
    config.temperature = temperature;
    MemoryWriter writer(config, RngKey{1});
    for (Linear* const layer : {&writer.query, &writer.key, &writer.value})
      layer->weight.value().copy_(identity2());
    Memory rest(config, RngKey{2});
    rest.forgetting.value().copy_(from_host({0.0, 1.0}, {1, 2}));

    // By hand: the scores are 1, 0, 1 over sqrt(2) tau, the values m, x_1, x_2.
    const double high = std::exp(1.0 / (std::sqrt(2.0) * temperature));
    const double self = high / (high + 1.0 + high), first = 1.0 / (high + 1.0 + high);
    const double written[] = {self + self, first};
    const double u[] = {written[0], written[1] + 1.0};
    const double length = std::hypot(u[0], u[1]);

    const Var by_writer = writer(pass, constant(memory), constant(tokens), {});
    const std::vector<double> m = by_writer.value.to_vector<double>();
    const std::vector<double> next = rest.advance(pass, by_writer).value.to_vector<double>();
    std::printf("temperature %.2f: weights on itself, x_1, x_2: %.4f %.4f %.4f\n", temperature,
                self, first, self);
    std::printf("  m' = %.4f %.4f, and after forgetting %.4f %.4f\n", m[0], m[1], next[0], next[1]);
    for (std::size_t i = 0; i < 2; ++i)
      right &= std::abs(m[i] - written[i]) < 1e-12 && std::abs(next[i] - u[i] / length) < 1e-9;
  }

  // A slot sees itself and the tokens, no other slot: another slot 2 changes slot 2 alone.
  const MemoryWriter writer(small_config(8, 4), RngKey{6});
  const Tensor slots = slots_of(4, 8, 1.0);
  const Tensor words = normal({1, 5, 8}, RngKey{7}, 0.0, 1.0, DType::f64);
  Tensor other = slots.clone();
  other.slice(1, 2, 3).fill_(0.5);
  const Tensor before = writer(pass, constant(slots), constant(words), {}).value;
  const Tensor after = writer(pass, constant(other), constant(words), {}).value;
  std::printf("slot 2 was changed; written slots with the same bits:");
  for (std::int64_t i = 0; i < 4; ++i) {
    const bool same = first_difference(before.slice(1, i, i + 1), after.slice(1, i, i + 1)) < 0;
    if (same) std::printf(" %d", static_cast<int>(i));
    right &= same == (i != 2);
  }
  std::printf("\n");

  // Its own value is the raw slot: with no token to see, nothing is lost. v1 projects it.
  const Tensor nothing = zeros({1, 5}, DType::u8);
  ModelConfig v1 = small_config(8, 4);
  v1.writer_project_value = true;
  const Tensor kept = writer(pass, constant(slots), constant(words), nothing).value;
  const Tensor projected =
      MemoryWriter(v1, RngKey{6})(pass, constant(slots), constant(words), nothing).value;
  const bool raw_kept = first_difference(kept, slots) < 0;
  const bool v1_kept = first_difference(projected, slots) < 0;
  std::printf("no token to see: kept bit for bit: %s; with v1's projected value: %s\n",
              raw_kept ? "yes" : "no", v1_kept ? "yes" : "no");
  right &= raw_kept && !v1_kept;
  return right ? 0 : 1;
}
