// G5: gradients of whole windows against finite differences.

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/support.h"

namespace mf::test {
namespace {

/// The gate of every gradient check (docs/numerics.md).
constexpr double kStep = 1e-6, kAbsolute = 1e-7, kRelative = 1e-6;

struct Tally {
  int checked = 0;
  double worst = 0.0;      ///< largest error in units of the gate
  std::string failures{};  ///< empty if every check passed
};

double loss_of(const Trial& trial) {
  const Outcome outcome = run_window(mrbp, trial);
  return outcome.result.mean_loss() + outcome.result.auxiliary;
}

/// Moves all parameters and the entry state along `direction`, by `distance`.
class Mover {
 public:
  explicit Mover(const Trial& trial) : parameters_(trial.model.parameters()) {
    for (const Parameter& parameter : parameters_) points_.push_back(parameter.value());
    for (const auto& entry : trial.entry) points_.push_back(entry.value);
    for (const Tensor& point : points_) origins_.push_back(point.clone());
  }
  ~Mover() { to({}, 0.0); }
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;

  std::size_t count() const { return points_.size(); }
  const Tensor& origin(std::size_t i) const { return origins_[i]; }

  void to(const std::vector<Tensor>& direction, double distance) {
    for (std::size_t i = 0; i < points_.size(); ++i) {
      points_[i].copy_(origins_[i]);
      if (!direction.empty() && direction[i].defined()) add_(points_[i], direction[i], distance);
    }
  }

 private:
  std::vector<Parameter> parameters_;
  std::vector<Tensor> points_, origins_;
};

/// Compares the gradients of `outcome` with central differences of the trial's loss: 16 random
/// directions over everything at once, and 16 single coordinates.
Tally compare(const Trial& trial, const Outcome& outcome, RngKey key) {
  Mover mover(trial);
  std::vector<Tensor> gradient;
  for (const auto& [name, value] : outcome.gradients) gradient.push_back(value);
  for (const auto& entry : outcome.result.entry_gradient) gradient.push_back(entry.value);
  REQUIRE(gradient.size() == mover.count());

  Tally tally;
  const auto check_along = [&](const std::vector<Tensor>& direction, const std::string& what) {
    double analytic = 0.0;
    for (std::size_t i = 0; i < gradient.size(); ++i)
      if (direction[i].defined() && gradient[i].defined())
        analytic += sum(mul(gradient[i], direction[i])).item();
    mover.to(direction, kStep);
    const double above = loss_of(trial);
    mover.to(direction, -kStep);
    const double below = loss_of(trial);
    const double numeric = (above - below) / (2.0 * kStep);
    const double error = std::abs(analytic - numeric) / (kAbsolute + kRelative * std::abs(numeric));
    ++tally.checked;
    tally.worst = std::max(tally.worst, error);
    if (!(error <= 1.0))
      tally.failures +=
          fmt::format("{}: analytic {:.12g}, numeric {:.12g}; ", what, analytic, numeric);
  };

  for (std::uint64_t k = 0; k < 16; ++k) {
    std::vector<Tensor> direction;
    double squares = 0.0;
    for (std::size_t i = 0; i < mover.count(); ++i) {
      direction.push_back(random_tensor(mover.origin(i).shape(), key.at(k).at(i)));
      squares += sum_of_squares(direction.back());
    }
    for (Tensor& part : direction) part = affine(part, 1.0 / std::sqrt(squares));
    check_along(direction, fmt::format("direction {}", k));
  }
  Draws draw(key.at("coordinates"));
  for (int k = 0; k < 16; ++k) {
    const auto i =
        static_cast<std::size_t>(draw.between(0, static_cast<std::int64_t>(mover.count()) - 1));
    const std::int64_t j = draw.between(0, mover.origin(i).elements() - 1);
    std::vector<Tensor> direction(mover.count());
    direction[i] = zeros_like(mover.origin(i));
    direction[i].mutable_data<double>()[j] = 1.0;
    const std::string name =
        i < outcome.gradients.size() ? outcome.gradients[i].first : "entry state";
    check_along(direction, fmt::format("{} [{}]", name, j));
  }
  return tally;
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
