// Chapter 10 of the walkthrough: docs/walkthrough/10-what-is-proven.md.
// Four ways to check chapter 8's recurrence, with a random number r_t in it, and six faults:
//   M_{t+1} = a r_t M_t + x_t,   o_t = w M_t + x_t,   loss_t = (o_t - y_t)^2 / 2.

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/mrbp.h"

namespace {

using namespace mf;

constexpr std::int32_t kX[] = {1, -1, 2, 1}, kY[] = {0, 1, 3, -1};
constexpr RngKey kKey{1};

struct Faults {
  double gradient_factor = 1.0;  ///< of a M_t's gradient at a
  bool minus_x = false;          ///< o_t = w M_t - x_t
  bool counted_draws = false;    ///< r_t from a counter: another number when the step runs again
  bool no_state_seed = false;    ///< mrbp forgets G
};

/// y = x, with a gradient that may be wrong.
struct Marred {
  static constexpr const char* kName = "marred";
  double factor;
  Tensor forward(Wants, const Tensor& x) const { return x; }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, mf::affine(gy, factor)); }
  auto saved() { return std::tie(); }
};

class Toy final : public Recurrence {
 public:
  explicit Toy(Faults planted) : faults(planted) {}
  Faults faults;
  Parameter a{scalar(0.5, DType::f64), "a"}, w{scalar(2.0, DType::f64), "w"};
  mutable std::uint64_t calls = 0;
  State initial_state(std::int64_t) const override {
    return {{"memory", full({1, 1}, 1.0, DType::f64), true, {}}};
  }
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    const RngKey key = faults.counted_draws ? RngKey{calls++} : pass.key;
    const Var decay = record(Marred{faults.gradient_factor}, pass.tape.param(a));
    const Var kept = scale(mul(decay, state[0].value), key.uniform(0));
    return {{"memory", add(kept, constant(segment.tokens.to(DType::f64))), true, {}}};
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    const Tensor x = affine(segment.tokens.to(DType::f64), faults.minus_x ? -1.0 : 1.0);
    StepResult result;
    result.outputs = add(mul(pass.tape.param(w), state[0].value), constant(x));
    const Var error = sub(result.outputs, constant(segment.targets.to(DType::f64)));
    result.loss = scale(sum(square(error)), 0.5);
    result.next = next_state(pass, segment, state);
    if (faults.no_state_seed) result.next[0].value = constant(result.next[0].value.value);
    return result;
  }
  std::vector<Parameter> parameters() const override { return {a, w}; }
};

using Found = std::vector<double>;  // loss, gradients of a and w

Found run(Toy& toy, decltype(&mrbp) method, bool check_replay = false) {
  std::vector<Segment> window(4);
  for (std::size_t t = 0; t < 4; ++t) {
    window[t].tokens = from_host({kX[t]}, {1, 1});
    window[t].targets = from_host({kY[t]}, {1, 1});
  }
  const WindowOptions options{LossScale::sum, Mode::train, check_replay, false, {}};
  for (Parameter parameter : toy.parameters()) parameter.zero_grad();
  const WindowResult result = method(toy, window, toy.initial_state(1), kKey, options);
  const auto gradient = [](const Tensor& g) { return g.defined() ? g.item() : 0.0; };
  return {result.loss_sum, gradient(toy.a.grad()), gradient(toy.w.grad())};
}

/// d(loss)/da by a central difference.
double quotient(Toy& toy) {
  toy.a.value().fill_(0.5 + 1e-6);
  const double above = run(toy, bptt)[0];
  toy.a.value().fill_(0.5 - 1e-6);
  return (above - run(toy, bptt)[0]) / 2e-6;
}

/// Without the library: the equations above and their derivatives by hand, in plain C++.
Found independent() {
  const double a = 0.5, w = 2.0;
  double M[5] = {1.0}, error[4], G = 0.0, loss = 0.0, da = 0.0, dw = 0.0;
  const auto r = [](std::size_t t) { return kKey.at(t).uniform(0); };
  for (std::size_t t = 0; t < 4; ++t) {
    M[t + 1] = a * r(t) * M[t] + kX[t];
    error[t] = w * M[t] + kX[t] - kY[t];
    loss += 0.5 * error[t] * error[t];
    dw += error[t] * M[t];
  }
  for (std::size_t t = 4; t-- > 0; G = w * error[t] + a * r(t) * G) da += G * r(t) * M[t];
  return {loss, da, dw};
}

bool near(double value, double expected, double absolute, double relative) {
  return std::abs(value - expected) <= absolute + relative * std::abs(expected);
}

/// A letter for each way that sees the faults, else a dot.
std::string seen_by(Faults faults) {
  Toy toy(faults), unrolled(faults);
  unrolled.faults.no_state_seed = false;  // a fault of mrbp, not of the model
  const Found ours = run(toy, mrbp), other = independent();
  std::string seen = ours == run(unrolled, bptt) ? "." : "B";
  try {
    run(toy, mrbp, true);
    seen += ".";
  } catch (const Error&) {
    seen += "R";
  }
  seen += near(ours[1], quotient(unrolled), 1e-7, 1e-6) ? "." : "D";
  for (std::size_t i = 0; i < 3; ++i)
    if (!near(ours[i], other[i], 0.0, 1e-10)) return seen + "I";
  return seen + ".";
}

}  // namespace

int main() {
  const struct {
    const char* name;
    Faults faults;
    const char* expected;
  } cases[] = {{"no fault", {}, "...."},
               {"mrbp forgets the seed G", {.no_state_seed = true}, "B.DI"},
               {"the replay draws other numbers", {.counted_draws = true}, "BRDI"},
               {"a gradient 1 % too large", {.gradient_factor = 1.01}, "..DI"},
               {"a gradient 1e-8 too large", {.gradient_factor = 1.0 + 1e-8}, "...I"},
               {"a gradient 1e-12 too large", {.gradient_factor = 1.0 + 1e-12}, "...."},
               {"a wrong equation, rightly differentiated", {.minus_x = true}, "...I"}};
  std::printf("B: MRBP has not BPTT's bits    R: the replay check stops\n");
  std::printf("D: not the difference quotient I: not an independent program's numbers\n");
  bool right = true;
  for (const auto& c : cases) {
    const std::string seen = seen_by(c.faults);
    std::printf("%-42s %s\n", c.name, seen.c_str());
    right &= seen == c.expected;
  }
  return right ? 0 : 1;
}
