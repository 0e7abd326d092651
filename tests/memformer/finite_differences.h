#pragma once

#include <fmt/format.h>

#include "memformer/replay/sweep.h"
#include "tests/support.h"

/// Gradients of whole windows against central differences of the window's loss.
namespace mf::test {

/// The gate of every gradient check (docs/numerics.md).
struct Gate {
  double absolute = 1e-7, relative = 1e-6;
  int directions = 16;   ///< random ones, over everything at once
  int coordinates = 16;  ///< single ones
};
constexpr double kStep = 1e-6;

struct Tally {
  int checked = 0;
  double worst = 0.0;      ///< largest error in units of the gate
  std::string failures{};  ///< empty if every check passed
};

/// What the gradients of a window are the derivative of: nothing is recorded.
inline double loss_of(const Recurrence& model, std::span<const Segment> segments,
                      const State& entry, RngKey key) {
  double loss = 0.0, auxiliary = 0.0;
  LiveState state = constants_of(entry);
  for (std::size_t t = 0; t < segments.size(); ++t) {
    Tape off = Tape::off();
    StepResult step =
        model.step(pass_of(off, static_cast<std::int64_t>(t), key, {}), segments[t], state);
    if (step.loss.value.defined()) loss += step.loss.value.item();
    if (step.auxiliary.value.defined()) auxiliary += step.auxiliary.value.item();
    state = std::move(step.next);
  }
  return loss * loss_weight(segments, LossScale::mean) + auxiliary;
}

/// Moves all parameters and the entry state along `direction`, by `distance`.
class Mover {
 public:
  Mover(const Recurrence& model, const State& entry) : parameters_(model.parameters()) {
    for (const Parameter& parameter : parameters_) points_.push_back(parameter.value());
    for (const auto& part : entry) points_.push_back(part.value);
    for (const Tensor& point : points_) origins_.push_back(point.clone());
  }
  ~Mover() { to({}, 0.0); }
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;

  std::size_t count() const { return points_.size(); }
  const Tensor& origin(std::size_t i) const { return origins_[i]; }
  /// False for what is carried only, and for what has no elements yet.
  bool moves(std::size_t i) const {
    return is_float(origins_[i].dtype()) && origins_[i].elements() > 0;
  }

  void to(const std::vector<Tensor>& direction, double distance) {
    for (std::size_t i = 0; i < points_.size(); ++i) {
      if (!moves(i)) continue;
      points_[i].copy_(origins_[i]);
      if (!direction.empty() && direction[i].defined()) add_(points_[i], direction[i], distance);
    }
  }

 private:
  std::vector<Parameter> parameters_;
  std::vector<Tensor> points_, origins_;
};

/// Compares the gradients of `outcome`, of this window, with central differences of its loss:
/// random directions over everything at once, and single coordinates.
inline Tally compare(const Recurrence& model, std::span<const Segment> segments, const State& entry,
                     RngKey window_key, const Outcome& outcome, RngKey key, const Gate& gate = {}) {
  Mover mover(model, entry);
  std::vector<Tensor> gradient;
  for (const auto& [name, value] : outcome.gradients) gradient.push_back(value);
  for (const auto& part : outcome.result.entry_gradient) gradient.push_back(part.value);
  check(gradient.size() == mover.count(), "compare: {} gradients of {} tensors", gradient.size(),
        mover.count());

  Tally tally;
  const auto check_along = [&](const std::vector<Tensor>& direction, const std::string& what) {
    double analytic = 0.0;
    for (std::size_t i = 0; i < gradient.size(); ++i)
      if (direction[i].defined() && gradient[i].defined())
        analytic += sum(mul(gradient[i], direction[i])).item();
    mover.to(direction, kStep);
    const double above = loss_of(model, segments, entry, window_key);
    mover.to(direction, -kStep);
    const double below = loss_of(model, segments, entry, window_key);
    mover.to({}, 0.0);
    const double numeric = (above - below) / (2.0 * kStep);
    const double error =
        std::abs(analytic - numeric) / (gate.absolute + gate.relative * std::abs(numeric));
    ++tally.checked;
    tally.worst = std::max(tally.worst, error);
    if (!(error <= 1.0))
      tally.failures +=
          fmt::format("{}: analytic {:.12g}, numeric {:.12g}; ", what, analytic, numeric);
  };

  for (int k = 0; k < gate.directions; ++k) {
    const RngKey along = key.at(static_cast<std::uint64_t>(k));
    std::vector<Tensor> direction(mover.count());
    double squares = 0.0;
    for (std::size_t i = 0; i < mover.count(); ++i) {
      if (!mover.moves(i)) continue;
      direction[i] = random_tensor(mover.origin(i).shape(), along.at(i));
      squares += sum_of_squares(direction[i]);
    }
    for (Tensor& part : direction)
      if (part.defined()) part = affine(part, 1.0 / std::sqrt(squares));
    check_along(direction, fmt::format("direction {}", k));
  }
  Draws draw(key.at("coordinates"));
  for (int k = 0; k < gate.coordinates; ++k) {
    std::size_t i = 0;
    do i = static_cast<std::size_t>(draw.between(0, static_cast<std::int64_t>(mover.count()) - 1));
    while (!mover.moves(i));
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

}  // namespace mf::test
