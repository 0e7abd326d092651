// Incremental decoding is full decoding, one position at a time, in storage that is allocated once.

#include <doctest/doctest.h>

#include "memformer/data/bytes.h"
#include "memformer/train/evaluate.h"
#include "memformer/train/generate.h"
#include "tensor/memory.h"
#include "tests/support.h"

namespace mf::test {
namespace {

using doctest::Contains;

/// A model with a decoder, every switch drawn.
Memformer random_decoder(Draws& draw, DType dtype, Coverage* coverage = nullptr) {
  ModelConfig config = random_config(draw, dtype);
  config.architecture = Architecture::encoder_decoder;
  config.segment = draw.between(1, 9);
  if (coverage) coverage->add(config);
  Memformer model(config, draw.key());
  perturb(model.parameters(), draw.key(), 0.3);
  return model;
}

/// What the decoder reads in one segment.
struct Reading {
  Tensor encoded;  ///< [B, 1..segment, width]
  Tensor padding;  ///< u8 or undefined
  Tensor inputs;   ///< i32 [B, segment]
};

Reading random_reading(Draws& draw, const ModelConfig& c, std::int64_t batch) {
  const std::int64_t length = draw.between(1, c.segment);
  Reading reading;
  reading.encoded = random_tensor({batch, length, c.width}, draw.key(), c.dtype);
  if (draw.chance(0.5)) reading.padding = random_padding(draw, batch, length);
  reading.inputs = random_ids(draw, batch, c.segment, c.vocabulary);
  return reading;
}

Tensor column(const Tensor& x, std::int64_t i) {
  return x.slice(1, i, i + 1).contiguous().reshape({x.size(0)});
}

/// Logits [B, segment, vocabulary] of full decoding.
Tensor decoded(const Memformer& model, const Reading& reading) {
  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  return model.decode(pass, reading.inputs, constant(reading.encoded), reading.padding).value;
}

/// Largest relative difference of a position's logits [B, vocabulary] from full decoding, when the
/// positions are read one by one; `disturb(i)` runs before position i.
template <class Disturb>
double difference(const Memformer& model, DecoderCache& cache, const Reading& reading,
                  const Disturb& disturb) {
  const Tensor full = decoded(model, reading);
  double worst = 0.0;
  for (std::int64_t i = 0; i < reading.inputs.size(1); ++i) {
    disturb(i);
    const Tensor logits = model.decode_next(cache, column(reading.inputs, i));
    const Tensor expected = full.slice(1, i, i + 1).contiguous().reshape(logits.shape());
    worst = std::max(worst, relative_difference(logits, expected));
  }
  return worst;
}

double difference(const Memformer& model, DecoderCache& cache, const Reading& reading) {
  model.start_decoding(cache, reading.encoded, reading.padding);
  return difference(model, cache, reading, [](std::int64_t) {});
}

ModelConfig plain_config() {
  ModelConfig config;
  config.width = 16;
  config.heads = 2;
  config.encoder_layers = 1;
  config.decoder_layers = 2;
  config.feed_forward = 16;
  config.segment = 8;
  config.slots = 3;
  return config;
}

/// Counts the blocks that the CPU's allocator takes from the system while the scope lives.
class SystemBlocks {
 public:
  SystemBlocks() : counting_(cpu_backend()) {
    taken_ = 0;
    counting_.allocate = [](Device device, std::int64_t bytes) {
      ++taken_;
      return cpu_backend().allocate(device, bytes);
    };
    register_backend(Device::Kind::cpu, &counting_);
  }
  ~SystemBlocks() { register_backend(Device::Kind::cpu, &cpu_backend()); }
  SystemBlocks(const SystemBlocks&) = delete;
  SystemBlocks& operator=(const SystemBlocks&) = delete;

  std::int64_t taken() const { return taken_; }

 private:
  static inline std::int64_t taken_ = 0;
  Backend counting_;
};

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("decoding: position by position gives the logits of full decoding") {
  Coverage coverage;
  Draws draw(RngKey{901});
  for (int trial = 0; trial < 400; ++trial) {
    const DType dtype = trial % 2 == 0 ? DType::f64 : DType::f32;
    const Memformer model = random_decoder(draw, dtype, &coverage);
    const std::int64_t batch = draw.between(1, 3);
    CAPTURE(to_json(model.config()));
    CAPTURE(batch);
    coverage.add("batch", std::to_string(batch));
    DecoderCache cache;
    for (int segment = 0; segment < 3; ++segment) {
      CAPTURE(segment);
      const Reading reading = random_reading(draw, model.config(), batch);
      coverage.add("padded", reading.padding.defined() ? "1" : "0");
      CHECK(difference(model, cache, reading) <= (dtype == DType::f64 ? 1e-12 : 1e-5));
    }
  }
  CHECK(coverage.missing({{"positions", 5},
                          {"activation", 3},
                          {"heads", 2},
                          {"decoder_layers", 3},
                          {"attention_bias", 2},
                          {"final_norm", 2},
                          {"tie_embeddings", 2},
                          {"tie_output", 2},
                          {"dropout", 2},
                          {"batch", 3},
                          {"padded", 2}}) == "");
}

TEST_CASE("decoding: a cache one position off, or of the segment before, is seen") {
  Draws draw(RngKey{902});
  int disturbed = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const Memformer model = random_decoder(draw, DType::f64);
    const ModelConfig& config = model.config();
    if (config.segment < 4) continue;
    ++disturbed;
    CAPTURE(to_json(config));
    DecoderCache cache;
    const Reading reading = random_reading(draw, config, 2);
    CHECK(difference(model, cache, reading) <= 1e-12);

    model.start_decoding(cache, reading.encoded, reading.padding);
    const auto forget_one = [&](std::int64_t i) {
      if (i != 2) return;
      for (DecoderCache::Layer& layer : cache.layers) --layer.self.length;
    };
    CHECK(difference(model, cache, reading, forget_one) > 1e-6);

    const Reading other = random_reading(draw, config, 2);
    model.start_decoding(cache, other.encoded, other.padding);
    CHECK(difference(model, cache, reading, [](std::int64_t) {}) > 1e-6);
  }
  CHECK(disturbed > 20);
}

TEST_CASE("decoding: one cache serves models and batches in turn") {
  Draws draw(RngKey{903});
  DecoderCache cache;
  for (int trial = 0; trial < 60; ++trial) {
    const Memformer model = random_decoder(draw, DType::f64);
    CAPTURE(to_json(model.config()));
    CHECK(difference(model, cache, random_reading(draw, model.config(), draw.between(1, 3))) <=
          1e-12);
  }
}

TEST_CASE("decoding: weights that change between segments are seen") {
  Draws draw(RngKey{904});
  for (int trial = 0; trial < 20; ++trial) {
    const Memformer model = random_decoder(draw, DType::f64);
    CAPTURE(to_json(model.config()));
    const Reading reading = random_reading(draw, model.config(), 1);
    DecoderCache cache;
    CHECK(difference(model, cache, reading) <= 1e-12);
    perturb(model.parameters(), draw.key(), 0.3);
    CHECK(difference(model, cache, reading) <= 1e-12);
  }
}

TEST_CASE("decoding: the next segment is read in the same storage") {
  const Memformer model(plain_config(), RngKey{1});
  Draws draw(RngKey{905});
  DecoderCache cache;
  const auto storage = [&] {
    std::vector<const void*> blocks;
    for (const DecoderCache::Layer& layer : cache.layers)
      for (const KeyValueCache* part : {&layer.self, &layer.cross})
        for (const Tensor* x : {&part->keys, &part->values}) blocks.push_back(x->storage_id());
    return blocks;
  };
  difference(model, cache, random_reading(draw, model.config(), 2));
  const auto first = storage();
  REQUIRE(first.size() == 8);
  difference(model, cache, random_reading(draw, model.config(), 2));
  CHECK(storage() == first);
}

TEST_CASE("decoding: misuse is an error that says what to do") {
  const ModelConfig config = plain_config();
  const Memformer model(config, RngKey{1});
  DecoderCache cache;
  const auto ids = [](std::vector<std::int32_t> values) {
    return from_host(values, {std::ssize(values)});
  };
  CHECK_THROWS_WITH_AS(model.decode_next(cache, ids({1})), Contains("call start first"), Error);
  CHECK_THROWS_WITH_AS(model.start_decoding(cache, zeros({1, 9, 16}, DType::f32)),
                       Contains("[batch, 1..8, 16]; got f32[1, 9, 16]"), Error);
  CHECK_THROWS_WITH_AS(model.start_decoding(cache, zeros({1, 4, 8}, DType::f32)),
                       Contains("[batch, 1..8, 16]; got f32[1, 4, 8]"), Error);
  model.start_decoding(cache, zeros({2, 4, 16}, DType::f32));
  CHECK_THROWS_WITH_AS(model.decode_next(cache, ids({1})), Contains("i32[2]; got i32[1]"), Error);
  CHECK_THROWS_WITH_AS(model.decode_next(cache, ids({1, 257})), Contains("id 257 at position 1"),
                       Error);
  CHECK(cache.position() == 0);  // a refused token was not read
  for (int i = 0; i < 8; ++i) model.decode_next(cache, ids({1, 2}));
  CHECK_THROWS_WITH_AS(model.decode_next(cache, ids({1, 2})), Contains("all 8 positions"), Error);

  ModelConfig encoder_only = config;
  encoder_only.architecture = Architecture::encoder_only;
  const Memformer headless(encoder_only, RngKey{1});
  CHECK_THROWS_WITH_AS(headless.start_decoding(cache, zeros({1, 4, 16}, DType::f32)),
                       Contains("encoder_only"), Error);
  CHECK_THROWS_WITH_AS(headless.decode_next(cache, ids({1})), Contains("encoder_only"), Error);
}

TEST_CASE("decoding: after the first segments a token takes no block from the system") {
  for (const Positions positions : {Positions::learned, Positions::sinusoidal,
                                    Positions::relative_bias, Positions::simplified_relative}) {
    ModelConfig config = plain_config();
    config.positions = positions;
    const Memformer model(config, RngKey{1});
    Generator generator(model, "a prompt", {}, RngKey{1});
    for (int i = 0; i < 3 * 8; ++i) generator.next();
    const SystemBlocks blocks;
    const MemoryStats before = memory_stats();
    for (int i = 0; i < 200; ++i) {
      generator.next();
      const MemoryStats now = memory_stats();
      REQUIRE(now.active == before.active);
      REQUIRE(now.cached == before.cached);
    }
    CHECK(blocks.taken() == 0);
  }
  // The counter counts.
  const SystemBlocks blocks;
  release_cached();
  const Tensor x = zeros({3}, DType::f32);
  CHECK(blocks.taken() == 1);
}

TEST_CASE("evaluate: a longer text takes no block from the system") {
  const Memformer model(plain_config(), RngKey{1});
  const auto run = [&](std::size_t bytes) {
    EvaluateOptions options;
    options.batch = 2;
    options.segment_length = 8;
    evaluate(model, std::vector{std::string(bytes, 'x')}, options);
  };
  run(200);
  const SystemBlocks blocks;
  run(200);
  run(4000);
  CHECK(blocks.taken() == 0);
}

TEST_SUITE_END();

}  // namespace mf::test
