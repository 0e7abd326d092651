// G5: gradients of whole windows against finite differences.

#include <doctest/doctest.h>

#include "tests/memformer/finite_differences.h"
#include "tests/support.h"

namespace mf::test {
namespace {

Tally compare(const Trial& trial, const Outcome& outcome, RngKey key) {
  return test::compare(trial.model, trial.segments, trial.entry, trial.key, outcome, key);
}

Trial trial_of(int i) {
  Draws draw(RngKey{51}.at(static_cast<std::uint64_t>(i)));
  const ModelConfig config = random_config(draw, DType::f64);
  return random_trial(draw, config, 2 + i % 4);
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("memformer: window gradients equal finite differences in 30 random configurations") {
    Coverage coverage;
    int checked = 0;
    double worst = 0.0;
    for (int i = 0; i < 30; ++i) {
      const Trial trial = trial_of(i);
      coverage.add(trial);
      const Tally tally =
          compare(trial, run_window(mrbp, trial), RngKey{52}.at(static_cast<std::uint64_t>(i)));
      CHECK_MESSAGE(tally.failures.empty(),
                    "trial " << i << ": " << tally.failures << describe(trial));
      checked += tally.checked;
      worst = std::max(worst, tally.worst);
    }
    fmt::print("{} finite differences, the worst at {:.3f} of the gate\n", checked, worst);
    CHECK(checked == 30 * 32);
    std::map<std::string, std::size_t> expected = all_switches();
    expected["segments"] = 4;
    CHECK_MESSAGE(coverage.missing(expected).empty(), coverage.missing(expected));
  }

  TEST_CASE("memformer: finite differences reject gradients that miss the memory's path") {
    int with_memory = 0;
    for (int i = 0; i < 30 && with_memory < 3; ++i) {
      Trial trial = trial_of(i);
      if (trial.config.slots == 0 || trial.segments.size() < 3) continue;
      for (Segment& segment : trial.segments) segment.reset = Tensor{};
      ++with_memory;
      const RngKey key{53};
      REQUIRE(compare(trial, run_window(mrbp, trial), key).failures.empty());
      const State entry = trial.entry;
      trial.entry = with_boundary(entry, Boundary{1});
      const Outcome cut = run_window(mrbp, trial);
      trial.entry = entry;
      CHECK(!compare(trial, cut, key).failures.empty());
    }
    CHECK(with_memory == 3);
  }
}

}  // namespace mf::test
