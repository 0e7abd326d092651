// Chapter 2 of the walkthrough: docs/walkthrough/02-one-op.md.
// An op of your own: a plain struct with forward, backward and saved. No base class, no
// registration. Then the gradient checker judges it, and two wrong ones.

#include <cmath>
#include <cstdio>

#include "autograd/grad_check.h"
#include "autograd/ops.h"

namespace {

using namespace mf;

/// y = log(1 + exp(x)), elementwise.
/// x: f32|f64, any shape. Result: same shape and dtype.
/// Saves: x. Gradient: gx = gy * sigmoid(x).
struct Softplus {
  static constexpr const char* kName = "softplus";
  Saved x{};

  Tensor forward(Wants, const Tensor& input) {
    x = input;
    // log(1 + e^x) = -log(sigmoid(-x)).
    return mf::negative(mf::log(mf::sigmoid(mf::negative(input))));
  }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, mf::mul(gy, mf::sigmoid(x))); }
  auto saved() { return std::tie(x); }
};

Var softplus(const Var& x) { return record(Softplus{}, x); }

/// The same with tanh where sigmoid belongs.
struct WrongSoftplus : Softplus {
  static constexpr const char* kName = "wrong_softplus";
  void backward(const Tensor& gy, Grads& g) const { g.add(0, mf::mul(gy, mf::tanh(x))); }
};

/// y = softmax(x) with a backward that gives zeros.
struct DeadSoftmax {
  static constexpr const char* kName = "dead_softmax";
  Tensor forward(Wants, const Tensor& input) const { return mf::softmax(input); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, zeros_like(gy)); }
  auto saved() { return std::tie(); }
};

/// What the checker says; the numbers behind its verdict are rounding, so they are not printed.
bool agrees(const char* name, const GradFunction& fn, const Tensor& x) {
  const GradReport report = grad_check(name, fn, {{x}});
  std::printf("%-27s %s: %d of %d coordinates wrong\n", name, report.ok ? "agrees " : "DIFFERS",
              static_cast<int>(report.failures.size()), static_cast<int>(report.checked));
  for (const GradReport::Failure& failure : report.failures)
    std::printf("    coordinate %d: analytic %9.6f, numeric %9.6f\n",
                static_cast<int>(failure.index), failure.analytic, failure.numeric);
  return report.ok;
}

}  // namespace

int main() {
  bool right = true;

  // By hand, at one x after the other: the tape's derivative, and a difference quotient.
  std::printf("     x  softplus  sigmoid   tape      (y(x+h) - y(x-h)) / 2h\n");
  for (const double x : {-2.0, 0.0, 2.0}) {
    constexpr double kStep = 1e-5;
    const auto y = [](double at) { return std::log1p(std::exp(at)); };
    Tape tape;
    const Var leaf = tape.input(scalar(x, DType::f64));
    const Var value = softplus(leaf);
    tape.backward(value);
    const double slope = tape.grad(leaf).item();
    const double sigmoid = 1.0 / (1.0 + std::exp(-x));
    const double quotient = (y(x + kStep) - y(x - kStep)) / (2.0 * kStep);
    std::printf("%6.1f  %.6f  %.6f  %.6f  %.6f\n", x, value.value.item(), sigmoid, slope, quotient);
    right &= std::abs(slope - sigmoid) < 1e-12 && std::abs(slope - quotient) < 1e-8;
  }

  // The checker: every coordinate, the output contracted with irregular weights.
  const Tensor x = from_host({-2.0, -0.5, 0.0, 0.5, 2.0, 8.0}, {2, 3});
  const auto good = [](Tape&, std::span<const Var> in) { return softplus(in[0]); };
  const auto wrong = [](Tape&, std::span<const Var> in) { return record(WrongSoftplus{}, in[0]); };
  right &= agrees("softplus", good, x);
  right &= !agrees("tanh for sigmoid", wrong, x);

  // Why irregular weights: the rows of a softmax sum to one, so the sum of all has no gradient, and
  // a backward that does nothing looks right.
  const auto dead = [](Tape&, std::span<const Var> in) { return record(DeadSoftmax{}, in[0]); };
  const auto summed = [&](Tape& tape, std::span<const Var> in) { return sum(dead(tape, in)); };
  right &= !agrees("softmax without gradient", dead, x.slice(0, 0, 1));
  right &= agrees("the same under a plain sum", summed, x.slice(0, 0, 1));

  // Without an operand on a tape nothing is recorded, and nothing is saved.
  Tape tape;
  softplus(constant(x));
  const std::int64_t unrecorded = tape.size();
  const Var leaf = tape.input(x);
  softplus(leaf);
  std::printf("entries: %d for a constant, %d for a leaf; bytes saved: %d = 6 numbers of 8 bytes\n",
              static_cast<int>(unrecorded), static_cast<int>(tape.size()),
              static_cast<int>(tape.saved_bytes()));
  right &= unrecorded == 0 && tape.size() == 1 && tape.saved_bytes() == 48;
  return right ? 0 : 1;
}
