// M2 and L1: what a window costs in live bytes, and that the ledger adds up.

#include <doctest/doctest.h>

#include <fmt/core.h>

#include "tensor/memory.h"
#include "tests/support.h"

namespace mf::test {
namespace {

constexpr std::int64_t kBatch = 4;

Trial uniform_trial(std::int64_t segments, DType dtype) {
  Draws draw(RngKey{41});
  ModelConfig config;
  config.vocabulary = 13;
  config.width = 16;
  config.heads = 2;
  config.encoder_layers = 2;
  config.decoder_layers = 2;
  config.feed_forward = 32;
  config.segment = 6;
  config.slots = 3;
  config.dropout = 0.1;
  config.dtype = dtype;
  Trial trial{config, Memformer(config, draw.key()), {}, {}, draw.key()};
  trial.entry = trial.model.initial_state(kBatch);
  for (std::int64_t t = 0; t < segments; ++t) {
    Segment& segment = trial.segments.emplace_back();
    segment.tokens = random_ids(draw, kBatch, 6, config.vocabulary);
    segment.decoder_inputs = random_ids(draw, kBatch, 6, config.vocabulary);
    segment.targets = random_ids(draw, kBatch, 6, config.vocabulary);
    segment.scored = segment.targets.elements();
  }
  trial.segments.front().reset = full({kBatch}, 1, DType::u8);
  return trial;
}

bool ledger_adds_up() {
  const MemoryStats stats = memory_stats();
  std::int64_t sum = 0;
  for (int i = 0; i < kCategories; ++i)
    if (static_cast<Category>(i) != Category::workspace)
      sum += stats.by_category[static_cast<std::size_t>(i)];
  return sum == stats.active;
}

/// Looks at the ledger in the middle of every pass.
class LedgerWitness final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    LiveState next = inner_.next_state(pass, segment, state);
    look();
    return next;
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result = inner_.step(pass, segment, state);
    look();
    return result;
  }
  mutable int looks = 0, wrong = 0;

 private:
  void look() const {
    ++looks;
    wrong += ledger_adds_up() ? 0 : 1;
  }
};

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE(
      "memory: each further segment costs mrbp exactly one state, and full unrolling a tape") {
    fmt::print("{:>5} {:>9} {:>12} {:>12} {:>14} {:>14}\n", "dtype", "segments", "bptt bytes",
               "mrbp bytes", "bptt/segment", "mrbp/segment");
    for (const DType dtype : {DType::f32, DType::f64}) {
      std::int64_t last_count = 0, last_unrolled = 0, last_replayed = 0;
      for (const std::int64_t count : {2, 3, 4, 8, 16, 32, 64}) {
        const Trial trial = uniform_trial(count, dtype);
        const std::int64_t state = bytes_of(trial.entry);
        REQUIRE(state == kBatch * 3 * 16 * size_of(dtype));
        const std::int64_t unrolled = peak_of(bptt, trial), replayed = peak_of(mrbp, trial);
        std::int64_t unrolled_growth = 0, replayed_growth = 0;
        if (last_count > 0) {
          const std::int64_t added = count - last_count;
          CAPTURE(count);
          CHECK(replayed - last_replayed == added * state);
          CHECK(unrolled - last_unrolled > added * 20 * state);
          unrolled_growth = (unrolled - last_unrolled) / added;
          replayed_growth = (replayed - last_replayed) / added;
        }
        fmt::print("{:>5} {:>9} {:>12} {:>12} {:>14} {:>14}\n", name_of(dtype), count, unrolled,
                   replayed, unrolled_growth, replayed_growth);
        last_count = count;
        last_unrolled = unrolled;
        last_replayed = replayed;
      }
    }
  }

  TEST_CASE("memory: an observer that keeps every segment's logits is seen in the growth") {
    // Negative control of the measurement above.
    const auto peak = [](std::int64_t count) {
      const Trial trial = uniform_trial(count, DType::f32);
      std::vector<Tensor> hoard;
      WindowOptions options;
      options.observe = [&](std::int64_t, const Segment&, const Tensor& outputs) {
        hoard.push_back(outputs);
      };
      const PeakScope scope;
      run_window(mrbp, trial, options);
      return scope.growth();
    };
    const std::int64_t logits = kBatch * 6 * 13 * size_of(DType::f32);
    const std::int64_t state = kBatch * 3 * 16 * size_of(DType::f32);
    CHECK(peak(16) - peak(8) == 8 * (state + logits));
  }

  TEST_CASE("memory: the ledger sums to the active bytes in the middle of every step") {
    const Trial trial = uniform_trial(6, DType::f32);
    for (const WindowMethod method : {mrbp, bptt}) {
      const LedgerWitness witness(trial.model);
      run_window(method, witness, trial.segments, trial.entry, trial.key);
      CHECK(witness.looks >= 6);
      CHECK(witness.wrong == 0);
      CHECK(ledger_adds_up());
    }
  }

  TEST_CASE("memory: parameters, states and gradients are booked as such") {
    const auto in = [](Category category) {
      return memory_stats().by_category[static_cast<std::size_t>(category)];
    };
    const std::int64_t parameters_before = in(Category::parameter);
    const std::int64_t gradients_before = in(Category::gradient),
                       states_before = in(Category::state);
    const Trial trial = uniform_trial(5, DType::f32);
    std::int64_t weights = 0;
    for (const Parameter& parameter : trial.model.parameters())
      weights += parameter.value().bytes();
    CHECK(in(Category::parameter)-parameters_before == weights);
    {
      const WindowResult result = mrbp(trial.model, trial.segments, trial.entry, trial.key);
      // M_0 came in; the five states after it were made here.
      CHECK(in(Category::state)-states_before == 5 * bytes_of(trial.entry));
      std::int64_t gradients = bytes_of(result.entry_gradient);
      for (const Parameter& parameter : trial.model.parameters())
        if (parameter.grad().defined()) gradients += parameter.grad().bytes();
      CHECK(in(Category::gradient)-gradients_before == gradients);
    }
    CHECK(in(Category::state) == states_before);
  }

  TEST_CASE("memory: everything is freed at the end of a scope, after an error too") {
    const std::int64_t before = memory_stats().active;
    {
      const Trial trial = uniform_trial(4, DType::f64);
      CHECK(memory_stats().active > before);
      for (const WindowMethod method : {mrbp, bptt}) run_window(method, trial);
    }
    CHECK(memory_stats().active == before);
    {
      Trial trial = uniform_trial(4, DType::f64);
      trial.segments[1].tokens = full({kBatch, 6}, 99, DType::i32);  // beyond the vocabulary
      for (const WindowMethod method : {mrbp, bptt})
        CHECK_THROWS_AS(run_window(method, trial), Error);
    }
    CHECK(memory_stats().active == before);
    CHECK(ledger_adds_up());
    release_cached();
    CHECK(memory_stats().cached == 0);
  }

  TEST_CASE("memory: peak scopes nest, and the outer one sees the inner one's peak") {
    const PeakScope outer;
    {
      const Tensor small = zeros({1000}, DType::f32);
      const PeakScope inner;
      { const Tensor large = zeros({5000}, DType::f32); }
      CHECK(inner.growth() == 20000);
    }
    CHECK(outer.growth() == 24000);
    {
      const PeakScope later;
      CHECK(later.growth() == 0);
    }
  }
}

}  // namespace mf::test
