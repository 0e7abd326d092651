// Memory replay back-propagation on a recurrence small enough for pencil and paper:
//   M_{t+1} = a M_t + x_t,   o_t = w M_t + x_t,   loss_t = (o_t - y_t)^2 / 2,
// with a = 0.5, w = 2, M_0 = 1, x = (1, -1, 2), y = (0, 1, 3).
//
// Forward: M = 1, 1.5, -0.25;  o - y = 3, 1, -1.5;  losses 4.5, 0.5, 1.125.
// Backward, with G_t = dloss/dM_t and nothing behind the last write:
//   G_2 = w (o_2 - y_2)         = -3
//   G_1 = w (o_1 - y_1) + a G_2 =  0.5
//   G_0 = w (o_0 - y_0) + a G_1 =  6.25
//   da = M_0 G_1 + M_1 G_2 = -4,   dw = M_0 3 + M_1 1 + M_2 (-1.5) = 4.875.
//
// mrbp sees one segment at a time, newest first, and carries only G; bptt has all on one tape.

#include <cstdio>

#include "autograd/ops.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/mrbp.h"

namespace {

using namespace mf;

/// x and y are whole numbers, so they fit where a language model has its tokens.
class Toy final : public Recurrence {
 public:
  Parameter a{scalar(0.5, DType::f64), "a"};
  Parameter w{scalar(2.0, DType::f64), "w"};

  State initial_state(std::int64_t) const override {
    return {{"memory", full({1, 1}, 1.0, DType::f64), true, {}}};
  }
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    const Var x = constant(segment.tokens.to(DType::f64));
    return {{"memory", add(mul(pass.tape.param(a), state[0].value), x), true, {}}};
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    const Var x = constant(segment.tokens.to(DType::f64));
    const Var y = constant(segment.targets.to(DType::f64));
    StepResult result;
    result.outputs = add(mul(pass.tape.param(w), state[0].value), x);
    result.loss = scale(sum(square(sub(result.outputs, y))), 0.5);
    result.next = next_state(pass, segment, state);
    return result;
  }
  std::vector<Parameter> parameters() const override { return {a, w}; }
};

Segment segment(std::int32_t x, std::int32_t y) {
  Segment s;
  s.tokens = from_host({x}, {1, 1});
  s.targets = from_host({y}, {1, 1});
  s.scored = 1;
  return s;
}

bool show(const char* method, const WindowResult& result, Toy& toy) {
  const double da = toy.a.grad().item();
  const double dw = toy.w.grad().item();
  const double g0 = result.entry_gradient[0].value.item();
  std::printf("%s: losses %g %g %g;  da = %g, dw = %g, dM_0 = %g\n", method,
              result.segment_losses[0], result.segment_losses[1], result.segment_losses[2], da, dw,
              g0);
  toy.a.zero_grad();
  toy.w.zero_grad();
  return result.segment_losses == std::vector{4.5, 0.5, 1.125} && da == -4.0 && dw == 4.875 &&
         g0 == 6.25;
}

}  // namespace

int main() {
  Toy toy;
  const std::vector<Segment> window{segment(1, 0), segment(-1, 1), segment(2, 3)};
  const State start = toy.initial_state(1);
  WindowOptions options;
  options.scale = LossScale::sum;
  const bool replayed = show("mrbp", mrbp(toy, window, start, RngKey{1}, options), toy);
  const bool unrolled = show("bptt", bptt(toy, window, start, RngKey{1}, options), toy);
  std::printf("%s\n", replayed && unrolled ? "both are exact" : "WRONG: see the numbers above");
  return replayed && unrolled ? 0 : 1;
}
