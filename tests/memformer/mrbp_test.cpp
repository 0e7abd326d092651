// M1 and M5: memory replay back-propagation gives the bits of full unrolling.

#include <doctest/doctest.h>

#include "tests/memformer/growing_cell.h"
#include "tests/support.h"

namespace mf::test {
namespace {

constexpr int kTrials = 50;
constexpr std::int64_t kLongestWindow = 16;

Trial trial_of(RngKey key, int i, DType dtype) {
  Draws draw(key.at(static_cast<std::uint64_t>(i)));
  const ModelConfig config = random_config(draw, dtype);
  Trial trial = random_trial(draw, config, 1 + i % kLongestWindow);
  const Boundary boundary{draw.pick<std::int64_t>({0, 0, 1, 2, 3})};
  trial.entry = with_boundary(trial.entry, boundary);
  return trial;
}

void require_equal_bits(DType dtype) {
  const RngKey key = RngKey{1}.at(name_of(dtype));
  Coverage coverage;
  for (int i = 0; i < kTrials; ++i) {
    const Trial trial = trial_of(key, i, dtype);
    coverage.add(trial);
    Outcome unrolled;
    {
      const ThreadScope one(1);
      unrolled = run_window(bptt, trial);
    }
    for (const int count : {1, 2, 4}) {
      const ThreadScope scope(count);
      const std::vector<std::string> wrong = differences(run_window(mrbp, trial), unrolled);
      CHECK_MESSAGE(wrong.empty(), "trial " << i << ", " << count << " threads: " << join(wrong)
                                            << " differ; " << describe(trial));
    }
  }
  std::map<std::string, std::size_t> expected = all_switches();
  expected["segments"] = kLongestWindow;
  CHECK_MESSAGE(coverage.missing(expected).empty(), coverage.missing(expected));
}

ModelConfig plain_config(DType dtype) {
  ModelConfig c;
  c.vocabulary = 11;
  c.width = 8;
  c.heads = 2;
  c.encoder_layers = 2;
  c.decoder_layers = 1;
  c.feed_forward = 12;
  c.segment = 5;
  c.slots = 3;
  c.dropout = 0.1;
  c.dtype = dtype;
  return c;
}

/// No resets: the gradient flows through every boundary.
Trial plain_trial(DType dtype, std::int64_t segments = 4) {
  Draws draw(RngKey{5});
  Trial trial = random_trial(draw, plain_config(dtype), segments);
  for (Segment& segment : trial.segments) segment.reset = Tensor{};
  return trial;
}

Segment cell_segment(Draws& draw, std::int64_t batch, std::int64_t vocabulary, bool has_targets) {
  Segment segment;
  segment.tokens = random_ids(draw, batch, draw.between(1, 4), vocabulary);
  if (draw.chance(0.3)) segment.reset = full({batch}, 1, DType::u8);
  if (has_targets) {
    segment.targets = random_ids(draw, batch, 1, vocabulary).reshape({batch});
    segment.scored = batch;
  }
  return segment;
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("mrbp: f64 results are bit-identical to full unrolling in 50 random configurations") {
    require_equal_bits(DType::f64);
  }

  TEST_CASE("mrbp: f32 results are bit-identical to full unrolling in 50 random configurations") {
    require_equal_bits(DType::f32);
  }

  TEST_CASE("mrbp: results are the same bits on 1, 2 and 4 threads where threads have work") {
    for (const DType dtype : {DType::f32, DType::f64}) {
      Draws draw(RngKey{2});
      ModelConfig config = plain_config(dtype);
      config.width = 64;
      config.feed_forward = 256;
      config.vocabulary = 300;
      config.segment = 24;
      Trial trial{config, Memformer(config, draw.key()), {}, {}, draw.key()};
      trial.entry = trial.model.initial_state(16);
      for (int t = 0; t < 3; ++t) {
        Segment& segment = trial.segments.emplace_back();
        segment.tokens = random_ids(draw, 16, 24, config.vocabulary);
        segment.decoder_inputs = random_ids(draw, 16, 24, config.vocabulary);
        segment.targets = random_ids(draw, 16, 24, config.vocabulary);
        segment.scored = segment.targets.elements();
      }
      Outcome unrolled;
      {
        const ThreadScope one(1);
        unrolled = run_window(bptt, trial);
      }
      for (const int count : {1, 2, 4}) {
        CAPTURE(count);
        const ThreadScope scope(count);
        CHECK(join(differences(run_window(mrbp, trial), unrolled)) == "");
      }
    }
  }

  TEST_CASE(
      "mrbp: a cell with a growing state, carried integers, auxiliary loss and a weight used "
      "twice gives the bits of full unrolling") {
    constexpr std::int64_t kBatch = 3, kVocabulary = 7;
    for (const DType dtype : {DType::f64, DType::f32}) {
      for (int count = 1; count <= kLongestWindow; ++count) {
        Draws draw(RngKey{3}.at(static_cast<std::uint64_t>(count)));
        const GrowingCell cell(kVocabulary, 6, draw.key(), dtype);
        perturb(cell.parameters(), draw.key());
        std::vector<Segment> segments;
        for (int t = 0; t < count; ++t)
          segments.push_back(
              cell_segment(draw, kBatch, kVocabulary, t + 1 == count || draw.chance(0.5)));
        State entry = cell.initial_state(kBatch);
        // Every tensor has a rule of its own.
        entry[0].boundary.detach_every = draw.pick<std::int64_t>({0, 2});
        entry[1].boundary.detach_every = draw.pick<std::int64_t>({0, 1, 3});
        const RngKey key = draw.key();
        const Outcome unrolled = run_window(bptt, cell, segments, entry, key);
        const Outcome replayed = run_window(mrbp, cell, segments, entry, key);
        CAPTURE(count);
        CHECK(join(differences(replayed, unrolled)) == "");
        CHECK(replayed.result.states.back()[1].value.size(1) ==
              std::min<std::int64_t>(count, GrowingCell::kLongest));
        CHECK(replayed.result.states.back()[2].value.to_vector<std::int32_t>() ==
              std::vector<std::int32_t>(kBatch, count));
        CHECK(!replayed.result.entry_gradient[2].value.defined());
        CHECK(replayed.result.auxiliary > 0.0);
      }
    }
  }

  TEST_CASE(
      "mrbp: dropping the seed of the next state changes the gradients, and the check says so") {
    const Trial trial = plain_trial(DType::f64);
    const Outcome right = run_window(bptt, trial);
    const Outcome wrong =
        run_window(mrbp, WithoutSeed(trial.model), trial.segments, trial.entry, trial.key);
    const std::string named = join(differences(wrong, right));
    CHECK(named.find("gradient of writer.value.weight") != std::string::npos);
    CHECK(named.find("gradient of memory.forgetting") != std::string::npos);
    CHECK(named.find("entry gradient") != std::string::npos);
    // The forward pass is the same: only gradients can tell.
    CHECK(named.find("loss") == std::string::npos);
    CHECK(named.find("state") == std::string::npos);
  }

  TEST_CASE(
      "mrbp: detaching at every boundary is the same as dropping the seed, not as keeping it") {
    const Trial trial = plain_trial(DType::f64);
    const State detached = with_boundary(trial.entry, Boundary{1});
    const auto run = [&](auto method, const Recurrence& model, const State& entry) {
      return run_window(method, model, trial.segments, entry, trial.key);
    };
    const Outcome cut = run(mrbp, trial.model, detached);
    CHECK(!differences(cut, run(mrbp, trial.model, trial.entry)).empty());
    CHECK(join(differences(cut, run(bptt, trial.model, detached))) == "");
    CHECK(join(differences(cut, run(mrbp, WithoutSeed(trial.model), trial.entry))) == "");
  }

  TEST_CASE("mrbp: the comparison with full unrolling sees one flipped bit in any of its parts") {
    const Trial trial = plain_trial(DType::f32);
    const Outcome right = run_window(mrbp, trial);
    const auto flip = [](Tensor& x) {
      Tensor changed = x.clone();
      auto* words = changed.mutable_data<float>();
      words[0] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(words[0]) ^ 1U);
      x = changed;
    };
    REQUIRE(differences(right, right).empty());
    for (std::size_t i = 0; i < right.gradients.size(); ++i) {
      Outcome wrong = right;
      flip(wrong.gradients[i].second);
      CHECK(differences(wrong, right) == std::vector{"gradient of " + right.gradients[i].first});
    }
    Outcome wrong = right;
    flip(wrong.result.states[2][0].value);
    flip(wrong.result.entry_gradient[0].value);
    wrong.result.segment_losses[1] = std::nextafter(wrong.result.segment_losses[1], 1e9);
    wrong.gradients[0].second = Tensor{};
    CHECK(differences(wrong, right).size() == 4);
  }

  TEST_CASE("mrbp: another key, another weight of the loss or evaluation give other gradients") {
    const Trial trial = plain_trial(DType::f64);
    const Outcome right = run_window(mrbp, trial);
    CHECK(!differences(run_window(mrbp, trial.model, trial.segments, trial.entry, RngKey{9}), right)
               .empty());
    WindowOptions sum, eval;
    sum.scale = LossScale::sum;
    eval.mode = Mode::eval;
    CHECK(!differences(run_window(mrbp, trial, eval), right).empty());
    const Outcome summed = run_window(mrbp, trial, sum);
    const auto scored = static_cast<double>(summed.result.scored);
    for (std::size_t i = 0; i < right.gradients.size(); ++i)
      if (right.gradients[i].second.defined())
        CHECK(relative_difference(affine(right.gradients[i].second, scored),
                                  summed.gradients[i].second) <= 1e-12);
  }

  TEST_CASE("mrbp: a row's gradient does not pass a reset, and M_0 gets it instead") {
    Trial trial = plain_trial(DType::f64);
    const std::int64_t batch = trial.segments.front().batch();
    const auto entry_gradient = [&] {
      return run_window(mrbp, trial).result.entry_gradient[0].value;
    };
    CHECK(sum_of_squares(entry_gradient()) > 0.0);
    trial.segments.front().reset = full({batch}, 1, DType::u8);
    CHECK(sum_of_squares(entry_gradient()) == 0.0);
  }

  TEST_CASE("mrbp: the last write of a window has no loss behind it") {
    Trial trial = plain_trial(DType::f64, 1);
    const Outcome outcome = run_window(mrbp, trial);
    for (const auto& gradient : outcome.gradients)
      if (gradient.first.starts_with("writer."))
        CHECK_MESSAGE(!gradient.second.defined(), gradient.first);
  }

  TEST_CASE("mrbp: gradients add to what is there") {
    const Trial trial = plain_trial(DType::f64);
    const Outcome once = run_window(mrbp, trial);
    for (int i = 0; i < 2; ++i) mrbp(trial.model, trial.segments, trial.entry, trial.key);
    for (std::size_t i = 0; i < once.gradients.size(); ++i) {
      Parameter parameter = trial.model.parameters()[i];
      REQUIRE(parameter.grad().defined() == once.gradients[i].second.defined());
      if (parameter.grad().defined())
        CHECK(relative_difference(parameter.grad(), affine(once.gradients[i].second, 2.0)) <=
              1e-12);
      parameter.zero_grad();
    }
  }

  TEST_CASE("mrbp: an empty window is an error that says so") {
    const Trial trial = plain_trial(DType::f64);
    const std::span<const Segment> none;
    CHECK_THROWS_WITH_AS(mrbp(trial.model, none, trial.entry, trial.key),
                         doctest::Contains("no segments"), Error);
    CHECK_THROWS_WITH_AS(bptt(trial.model, none, trial.entry, trial.key),
                         doctest::Contains("no segments"), Error);
  }
}

}  // namespace mf::test
