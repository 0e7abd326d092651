// M4, boundaries and windows: what is cut, what is carried, and that nothing else changes.

#include <doctest/doctest.h>

#include "memformer/replay/truncated.h"
#include "tests/memformer/growing_cell.h"
#include "tests/support.h"

namespace mf::test {
namespace {

Trial trial_of(std::uint64_t seed, std::int64_t segments, double dropout = 0.2) {
  Draws draw(RngKey{seed});
  ModelConfig config = random_config(draw, DType::f64);
  config.slots = 3;
  config.dropout = dropout;
  config.attention_dropout = dropout;
  Trial trial = random_trial(draw, config, segments);
  for (Segment& segment : trial.segments) segment.reset = Tensor{};
  return trial;
}

Outcome run_truncated(const Trial& trial, std::int64_t length) {
  const auto method = [length](const Recurrence& model, std::span<const Segment> segments,
                               const State& entry, RngKey key, const WindowOptions& options) {
    return truncated_bptt(model, segments, entry, key, length, options);
  };
  return run_window(method, trial);
}

/// Largest relative difference of any parameter gradient; infinite if one has a gradient the other
/// lacks.
double worst_gradient(const Outcome& a, const Outcome& b) {
  double worst = 0.0;
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    const Tensor& x = a.gradients[i].second;
    const Tensor& y = b.gradients[i].second;
    if (x.defined() != y.defined()) return std::numeric_limits<double>::infinity();
    if (x.defined()) worst = std::max(worst, relative_difference(x, y));
  }
  return worst;
}

std::function<bool(Segment&)> stream_of(const std::vector<Segment>& segments) {
  return [&segments, next = std::size_t{0}](Segment& segment) mutable {
    if (next == segments.size()) return false;
    segment = segments[next++];
    return true;
  };
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("truncated_bptt: length K equals full unrolling with a detach every K segments") {
    constexpr std::int64_t kSegments = 8;
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      Trial trial = trial_of(seed, kSegments);
      CAPTURE(describe(trial));
      const Outcome full_length = run_window(bptt, trial);
      for (std::int64_t length = 1; length <= kSegments + 1; ++length) {
        CAPTURE(length);
        trial.entry = with_boundary(trial.entry, Boundary{length});
        const Outcome detached = run_window(bptt, trial);
        const Outcome truncated = run_truncated(trial, length);
        CHECK(worst_gradient(truncated, detached) <= 1e-12);
        CHECK(join(differences(run_window(mrbp, trial), detached)) == "");
        // The forward pass and the entry's gradient are the same bits.
        Outcome gradients_aside = truncated;
        gradients_aside.gradients = detached.gradients;
        CHECK(join(differences(gradients_aside, detached)) == "");
        if (length >= kSegments) {
          CHECK(join(differences(truncated, full_length)) == "");
        } else {
          CHECK(worst_gradient(truncated, full_length) > 1e-6);
        }
      }
    }
  }

  TEST_CASE("truncated_bptt: a length below 1 and an empty window are errors that say so") {
    const Trial trial = trial_of(1, 2);
    CHECK_THROWS_WITH_AS(run_truncated(trial, 0), doctest::Contains("length 0 must be at least 1"),
                         Error);
    CHECK_THROWS_WITH_AS(truncated_bptt(trial.model, {}, trial.entry, trial.key, 1),
                         doctest::Contains("no segments"), Error);
  }

  TEST_CASE("boundary: cuts before the segments k, 2k, .. and never before the first") {
    const auto cuts = [](std::int64_t every) {
      std::vector<std::int64_t> at;
      for (std::int64_t t = 0; t < 7; ++t)
        if (Boundary{every}.cuts_before(t)) at.push_back(t);
      return at;
    };
    CHECK(cuts(0).empty());
    CHECK(cuts(1) == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6});
    CHECK(cuts(3) == std::vector<std::int64_t>{3, 6});
  }

  TEST_CASE("boundary: with a detach everywhere the gradient is the sum of the segments' own") {
    Trial trial = trial_of(3, 5, 0.0);  // no dropout: a segment alone would draw from another key
    WindowOptions options;
    options.scale = LossScale::sum;
    const Outcome kept_all = run_window(mrbp, trial, options);
    trial.entry = with_boundary(trial.entry, Boundary{1});
    const Outcome detached = run_window(mrbp, trial, options);

    std::vector<Parameter> parameters = trial.model.parameters();
    State entry = trial.entry;
    for (const Segment& segment : trial.segments)
      entry = bptt(trial.model, std::span(&segment, 1), entry, trial.key, options).states.back();
    double worst_detached = 0.0, worst_kept = 0.0;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Tensor sum_of_segments = parameters[i].grad();
      REQUIRE(sum_of_segments.defined() == detached.gradients[i].second.defined());
      if (!sum_of_segments.defined()) continue;
      worst_detached = std::max(worst_detached,
                                relative_difference(detached.gradients[i].second, sum_of_segments));
      worst_kept =
          std::max(worst_kept, relative_difference(kept_all.gradients[i].second, sum_of_segments));
    }
    CHECK(worst_detached <= 1e-12);
    CHECK(worst_kept > 1e-6);
    zero_grad(parameters);
  }

  TEST_CASE("boundary: tensors of one state are cut each by its own rule") {
    Draws draw(RngKey{8});
    const GrowingCell cell(7, 6, draw.key(), DType::f64);
    perturb(cell.parameters(), draw.key());
    std::vector<Segment> segments(4);
    for (Segment& segment : segments) segment.tokens = random_ids(draw, 2, 3, 7);
    segments.back().targets = random_ids(draw, 2, 1, 7).reshape({2});
    segments.back().scored = 2;
    const auto gradient = [&](std::int64_t hidden, std::int64_t cache) {
      State entry = cell.initial_state(2);
      entry[0].boundary.detach_every = hidden;
      entry[1].boundary.detach_every = cache;
      const Outcome replayed = run_window(mrbp, cell, segments, entry, RngKey{1});
      const Outcome unrolled = run_window(bptt, cell, segments, entry, RngKey{1});
      CHECK(join(differences(replayed, unrolled)) == "");
      return replayed;
    };
    const Outcome outcomes[] = {gradient(0, 0), gradient(1, 0), gradient(0, 1), gradient(1, 1)};
    for (int a = 0; a < 4; ++a)
      for (int b = 0; b < a; ++b) CHECK(worst_gradient(outcomes[a], outcomes[b]) > 1e-6);
  }

  TEST_CASE(
      "window: strides 1..H walk the stream and enter with the state before the oldest segment") {
    constexpr std::int64_t kHorizon = 4, kLength = 13;
    const Trial trial = trial_of(4, kLength, 0.0);
    const WindowResult whole = bptt(trial.model, trial.segments, trial.entry, trial.key);
    for (std::int64_t stride = 1; stride <= kHorizon; ++stride) {
      CAPTURE(stride);
      SlidingWindow window(kHorizon, stride);
      const auto next = stream_of(trial.segments);
      State entry = trial.entry;
      std::int64_t begin = 0;
      while (window.fill(next)) {
        REQUIRE(window.segments().size() == kHorizon);
        for (std::int64_t t = 0; t < kHorizon; ++t)
          CHECK(window.segments()[static_cast<std::size_t>(t)].tokens.shares_storage(
              trial.segments[static_cast<std::size_t>(begin + t)].tokens));
        const WindowResult result = mrbp(trial.model, window.segments(), entry, trial.key);
        // Weights did not change, so a window of a stream makes the states of the one long run.
        for (std::int64_t t = 0; t <= kHorizon; ++t)
          CHECK(identical(result.states[static_cast<std::size_t>(t)][0].value,
                          whole.states[static_cast<std::size_t>(begin + t)][0].value));
        for (std::int64_t t = 0; t < kHorizon; ++t)
          CHECK(identical(result.segment_losses[static_cast<std::size_t>(t)],
                          whole.segment_losses[static_cast<std::size_t>(begin + t)]));
        entry = window.advance(result);
        CHECK(identical(entry[0].value, result.states[static_cast<std::size_t>(stride)][0].value));
        begin += stride;
      }
      CHECK(begin + kHorizon > kLength);  // it stopped only because the stream ended
      CHECK(begin + kHorizon <= kLength + stride);
    }
  }

  TEST_CASE("window: impossible horizons and strides, and a result that is too short, are errors") {
    CHECK_THROWS_WITH_AS(SlidingWindow(0, 1), doctest::Contains("horizon 0"), Error);
    CHECK_THROWS_WITH_AS(SlidingWindow(4, 0), doctest::Contains("stride 0 must lie in 1..4"),
                         Error);
    CHECK_THROWS_WITH_AS(SlidingWindow(4, 5), doctest::Contains("stride 5 must lie in 1..4"),
                         Error);
    SlidingWindow window(4, 2);
    CHECK_THROWS_WITH_AS(window.advance(WindowResult{}), doctest::Contains("3 are needed"), Error);
  }

  TEST_CASE(
      "window: two windows with the carried state give the losses and states of one long run") {
    const Trial trial = trial_of(6, 7, 0.0);
    const WindowResult whole = mrbp(trial.model, trial.segments, trial.entry, trial.key);
    const std::span<const Segment> all(trial.segments);
    const WindowResult first = mrbp(trial.model, all.first(3), trial.entry, trial.key);
    const WindowResult second = mrbp(trial.model, all.subspan(3), first.states.back(), trial.key);
    const WindowResult forgetful = mrbp(trial.model, all.subspan(3), trial.entry, trial.key);
    bool memory_matters = false;
    for (std::size_t t = 0; t < 7; ++t) {
      const bool early = t < 3;
      const std::size_t at = early ? t : t - 3;
      CHECK(identical((early ? first : second).segment_losses[at], whole.segment_losses[t]));
      CHECK(identical((early ? first : second).states[at + 1][0].value,
                      whole.states[t + 1][0].value));
      if (!early)
        memory_matters |= !identical(forgetful.segment_losses[at], whole.segment_losses[t]);
    }
    CHECK(memory_matters);
  }
}

}  // namespace mf::test
