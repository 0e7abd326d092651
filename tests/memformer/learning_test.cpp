// R2: the model learns, and what it could only know by remembering it knows by its memory.

#include <doctest/doctest.h>

#include <fmt/core.h>

#include "memformer/data/synthetic.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "tests/support.h"

namespace mf::test {
namespace {

constexpr std::int64_t kDistance = 4;  ///< segments from the pair to the question
constexpr std::int32_t kKeys = 8, kValues = 8, kFillers = 4;
constexpr std::int32_t kQuery = kKeys + kValues + kFillers, kBegin = kQuery + 1;

/// A key and its value in segment 0, fillers, then the key again in segment 4: which value was it?
std::vector<Segment> recall_window(RngKey key, std::int64_t batch) {
  std::vector<Segment> segments(kDistance + 1);
  const auto tokens = [&](auto&& pair_of_row) {
    std::vector<std::int32_t> ids;
    for (std::int64_t b = 0; b < batch; ++b) {
      const auto [first, second] = pair_of_row(key.at(static_cast<std::uint64_t>(b)));
      ids.insert(ids.end(), {first, second});
    }
    return from_host(ids, {batch, 2});
  };
  const auto draw = [](RngKey row, std::int32_t first, std::int32_t count, std::uint64_t index) {
    return first + static_cast<std::int32_t>(row.below(static_cast<std::uint64_t>(count), index));
  };
  const auto key_of = [&](RngKey row) { return draw(row, 0, kKeys, 0); };
  const auto value_of = [&](RngKey row) { return draw(row, kKeys, kValues, 1); };
  const auto filler_of = [&](RngKey row, std::uint64_t i) {
    return draw(row, kKeys + kValues, kFillers, i);
  };

  segments.front().tokens =
      tokens([&](RngKey row) { return std::pair(key_of(row), value_of(row)); });
  segments.front().reset = full({batch}, 1, DType::u8);
  for (std::uint64_t t = 1; t < kDistance; ++t)
    segments[t].tokens = tokens(
        [&](RngKey row) { return std::pair(filler_of(row, 2 * t), filler_of(row, 2 * t + 1)); });
  Segment& question = segments.back();
  question.tokens = tokens([&](RngKey row) { return std::pair(kQuery, key_of(row)); });
  question.decoder_inputs = full({batch, 1}, kBegin, DType::i32);
  std::vector<std::int32_t> answers;
  for (std::int64_t b = 0; b < batch; ++b)
    answers.push_back(value_of(key.at(static_cast<std::uint64_t>(b))));
  question.targets = from_host(answers, {batch, 1});
  question.scored = batch;
  return segments;
}

ModelConfig recall_config() {
  ModelConfig c;
  c.vocabulary = kBegin + 1;
  c.width = 16;
  c.heads = 2;
  c.encoder_layers = 1;
  c.decoder_layers = 1;
  c.feed_forward = 32;
  c.segment = 2;
  c.slots = 4;
  return c;
}

struct Learner {
  Memformer model;
  RngKey key;
  std::vector<Parameter> parameters = model.parameters();
  Adam adam{parameters, {}};
  Schedule schedule{.peak = 3e-3, .warmup = 100, .total = 0};

  Learner(const ModelConfig& config, std::uint64_t seed)
      : model(config, RngKey{seed}.at("weights")), key(RngKey{seed}.at("steps")) {}

  /// One step of training on `segments`; returns the mean loss.
  double step(const std::vector<Segment>& segments, const State& entry) {
    zero_grad(parameters);
    const WindowResult result =
        mrbp(model, segments, entry, key.at(static_cast<std::uint64_t>(adam.steps())));
    adam.step(schedule.at(adam.steps()), clip_factor(global_gradient_norm(parameters), 1.0));
    return result.mean_loss();
  }

  /// The fraction of right answers among `batch` fresh rows.
  double accuracy(std::int64_t batch) const {
    const std::vector<Segment> segments = recall_window(RngKey{101}, batch);
    double right = 0.0;
    WindowOptions options;
    options.mode = Mode::eval;
    options.observe = [&](std::int64_t, const Segment& segment, const Tensor& outputs) {
      if (segment.targets.defined()) right = exact_match(outputs, segment.targets);
    };
    mrbp(model, segments, model.initial_state(batch), key, options);
    for (Parameter parameter : parameters) parameter.zero_grad();
    return right;
  }
};

double recall_after_training(const ModelConfig& config, std::uint64_t seed, bool detached = false) {
  constexpr std::int64_t kSteps = 300, kBatch = 16;
  const ThreadScope one(1);  // so small that a second thread costs more than it brings
  Learner learner(config, seed);
  const State entry =
      with_boundary(learner.model.initial_state(kBatch), Boundary{detached ? 1 : 0});
  for (std::int64_t i = 0; i < kSteps; ++i)
    learner.step(recall_window(RngKey{seed}.at("data").at(static_cast<std::uint64_t>(i)), kBatch),
                 entry);
  return learner.accuracy(1000);
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("learning: one batch is learned by heart, to a loss below 0.01") {
    ModelConfig config = recall_config();
    config.segment = 6;
    Draws draw(RngKey{102});
    std::vector<Segment> segments(3);
    for (Segment& segment : segments) {
      segment.tokens = random_ids(draw, 4, 6, config.vocabulary);
      segment.decoder_inputs = random_ids(draw, 4, 6, config.vocabulary);
      segment.targets = random_ids(draw, 4, 6, config.vocabulary);
      segment.scored = segment.targets.elements();
    }
    segments.front().reset = full({4}, 1, DType::u8);
    Learner learner(config, 1);
    const State entry = learner.model.initial_state(4);
    const double first = learner.step(segments, entry);
    double last = first;
    for (int i = 0; i < 400 && last >= 0.01; ++i) last = learner.step(segments, entry);
    fmt::print("one batch: loss {:.3f} before, {:.4f} after {} steps\n", first, last,
               learner.adam.steps());
    CHECK(first > 2.0);
    CHECK(last < 0.01);
  }

  TEST_CASE("learning: a value four segments back is recalled with memory, guessed without") {
    constexpr double kChance = 1.0 / kValues;
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
      ModelConfig without = recall_config();
      without.slots = 0;
      const double with_memory = recall_after_training(recall_config(), seed);
      const double without_memory = recall_after_training(without, seed);
      fmt::print("recall at distance {}, seed {}: {:.4f} with memory, {:.4f} without (chance {})\n",
                 kDistance, seed, with_memory, without_memory, kChance);
      CHECK(with_memory >= 0.99);
      CHECK(without_memory <= kChance + 0.05);
    }
  }

  TEST_CASE("learning: with the gradient cut at every boundary recall stays poor") {
    // Reading is still learned, and finds a little in what an untrained writer left.
    CHECK(recall_after_training(recall_config(), 1, true) < 0.5);
  }
}

}  // namespace mf::test
