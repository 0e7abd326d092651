// Chapter 7 of the walkthrough: docs/walkthrough/07-forgetting.md.
// What adding a vector and normalising does to a slot, step after step; how long a slot lasts; and
// the two ways by which the forgetting vector gets its gradient.

#include <cmath>
#include <cstdio>
#include <numbers>
#include <vector>

#include "autograd/ops.h"
#include "memformer/model/memory.h"

namespace {

using namespace mf;

constexpr double kDegrees = 180.0 / std::numbers::pi;

/// One slot of two features on the circle of the given radius, with the forgetting vector (x, y).
Memory memory_with(double x, double y, double radius = 1.0) {
  ModelConfig config;
  config.width = 2;
  config.heads = 1;
  config.slots = 1;
  config.memory_radius = radius;
  config.dtype = DType::f64;
  Memory memory(config, RngKey{1});
  memory.forgetting.value().copy_(from_host({x, y}, {1, 2}));
  return memory;
}

/// What becomes of a slot that attends only to itself (m' = m), by eq. F1 and F2.
Tensor advance(const Memory& memory, const Tensor& slot) {
  Tape off = Tape::off();
  return memory.advance(Pass{off, {}, Mode::eval, {}}, constant(slot)).value;
}

double angle_of(const Tensor& slot) {
  const std::vector<double> at = slot.to_vector<double>();
  return std::atan2(at[1], at[0]) * kDegrees;
}

Tensor at_angle(double degrees, double radius = 1.0) {
  return from_host({radius * std::cos(degrees / kDegrees), radius * std::sin(degrees / kDegrees)},
                   {1, 1, 2});
}

/// Steps until an angle of 10 degrees is halved.
int half_life(double length, double radius) {
  const Memory memory = memory_with(length, 0.0, radius);
  Tensor slot = at_angle(10.0, radius);
  int steps = 0;
  for (; angle_of(slot) > 5.0; ++steps) slot = advance(memory, slot);
  return steps;
}

/// The first feature of M_1 = BMN(M_0), M_0 recorded or not: its gradient at v.
std::vector<double> gradient_at_v(const Memory& memory, bool start_recorded) {
  Memory copy = memory;
  copy.forgetting.zero_grad();
  Tape tape;
  const Pass pass{tape, {}, Mode::train, {}};
  Var start = copy.initial(pass, 1);
  if (!start_recorded) start = constant(start.value);
  tape.backward({{copy.advance(pass, start), from_host({1.0, 0.0}, {1, 1, 2})}});
  return copy.forgetting.grad().to_vector<double>();
}

/// The same by a difference quotient in feature `i` of v.
double quotient(std::int64_t i) {
  const auto moved = [&](double by) {
    const Memory memory = memory_with(i == 0 ? 0.3 + by : 0.3, i == 1 ? -0.4 + by : -0.4);
    Tape off = Tape::off();
    const Pass pass{off, {}, Mode::eval, {}};
    return memory.advance(pass, memory.initial(pass, 1)).value.to_vector<double>()[0];
  };
  return (moved(1e-5) - moved(-1e-5)) / 2e-5;
}

}  // namespace

int main() {
  bool right = true;

  // The angle to the terminal state v / |v|, which lies at 0 degrees, and eq. F4 beside it.
  std::printf("  |v|   start   step 1   step 2   step 3   step 4\n");
  for (const double length : {0.1, 1.0, 1.15, 3.2}) {
    const Memory memory = memory_with(length, 0.0);
    Tensor slot = at_angle(170.0);
    double angle = 170.0;
    std::printf("%5.2f  %6.1f", length, angle);
    for (int step = 0; step < 4; ++step) {
      slot = advance(memory, slot);
      const double before = angle / kDegrees;
      angle = std::atan2(std::sin(before), std::cos(before) + length) * kDegrees;  // eq. F4
      std::printf("  %7.3f", angle_of(slot));
      right &= std::abs(angle_of(slot) - angle) < 1e-8;
    }
    std::printf("\n");
  }

  // Only |v| over the radius counts. Our default: 0.05 over sqrt(d), here for d = 64.
  std::printf("steps until 10 degrees are 5: |v| = 3.2: %d, 1.15: %d, 0.1: %d\n",
              half_life(3.2, 1.0), half_life(1.15, 1.0), half_life(0.1, 1.0));
  const int lasting = half_life(0.05, 8.0);
  std::printf("|v| = 0.05 at radius 8: %d, which is ln 2 / ln(1 + 0.05 / 8) = %.1f rounded up\n",
              lasting, std::log(2.0) / std::log(1.0 + 0.05 / 8.0));
  right &= lasting > 100;

  // To forget all is to be new: BMN of zero is the initial memory.
  const Memory memory = memory_with(0.3, -0.4);
  Tape off = Tape::off();
  const Tensor start = memory.initial(Pass{off, {}, Mode::eval, {}}, 1).value.contiguous();
  const Tensor reset = advance(memory, zeros({1, 1, 2}, DType::f64));
  const std::vector<double> m0 = start.to_vector<double>();
  std::printf("v = (0.3, -0.4): M_0 = (%.4f, %.4f), BMN(0) has the same bits: %s\n", m0[0], m0[1],
              first_difference(start, reset) < 0 ? "yes" : "no");
  right &= first_difference(start, reset) < 0;

  // Where m' = -v the direction is undefined; epsilon makes it zero instead of NaN.
  const std::vector<double> at =
      advance(memory, from_host({-0.3, 0.4}, {1, 1, 2})).to_vector<double>();
  std::printf("m' = -v: (%g, %g)\n", at[0], at[1]);
  right &= at[0] == 0.0 && at[1] == 0.0;

  // v is in every step and in M_0. Who makes M_0 outside the tape loses the second way.
  const std::vector<double> both = gradient_at_v(memory, true), one = gradient_at_v(memory, false);
  std::printf("d(first feature of M_1)/dv: both ways   %.4f %.4f\n", both[0], both[1]);
  std::printf("                      by the step alone %.4f %.4f\n", one[0], one[1]);
  std::printf("                    difference quotient %.4f %.4f\n", quotient(0), quotient(1));
  right &= std::abs(both[0] - quotient(0)) < 1e-6 && std::abs(both[1] - quotient(1)) < 1e-6;
  right &= std::abs(one[0] - quotient(0)) > 0.1;
  return right ? 0 : 1;
}
