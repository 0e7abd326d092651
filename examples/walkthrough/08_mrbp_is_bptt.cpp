// Chapter 8 of the walkthrough: docs/walkthrough/08-mrbp-is-bptt.md.
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

#include <cstdio>
#include <vector>

#include "autograd/ops.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/mrbp.h"
#include "tensor/memory.h"

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

/// "none" is not 0: see chapter 3.
void show(const char* name, const Tensor& gradient) {
  if (gradient.defined()) {
    std::printf("  %s = %g", name, gradient.item());
  } else {
    std::printf("  %s = none", name);
  }
}

/// Algorithm 1 with nothing around it. Returns G at the first memory.
Tensor spelled_out(const Toy& toy, const std::vector<Segment>& window) {
  std::vector<State> buffer{toy.initial_state(1)};  // eq. M1
  Tape off = Tape::off();
  for (std::size_t t = 0; t + 1 < window.size(); ++t)  // eq. M2: all but the last, not recorded
    buffer.push_back(values_of(
        toy.next_state(Pass{off, {}, Mode::train, {}}, window[t], constants_of(buffer[t]))));
  Tensor G;                                        // eq. M3: none yet
  for (std::size_t t = window.size(); t-- > 0;) {  // eq. M4: newest first
    Tape tape;
    const LiveState memory = leaves_of(tape, buffer[t]);
    const StepResult step = toy.step(Pass{tape, {}, Mode::train, {}}, window[t], memory);
    std::vector<Seed> seeds{{step.loss, scalar(1.0, DType::f64)}};
    if (G.defined()) seeds.push_back({step.next[0].value, G});
    tape.backward(seeds);            // eq. M5: the loss, and M_{t+1} with G
    G = tape.grad(memory[0].value);  // eq. M6
    std::printf("t = %d: M = %5.2f, loss = %5.3f; so far", static_cast<int>(t),
                buffer[t][0].value.item(), step.loss.value.item());
    show("G", G);
    show("da", toy.a.grad());
    show("dw", toy.w.grad());
    std::printf("\n");
  }
  return G;
}

/// Prints what a method found, compares it with the numbers above, and clears the gradients.
bool is_right(const char* method, const std::vector<double>& losses, const Tensor& G, Toy& toy) {
  const double da = toy.a.grad().item(), dw = toy.w.grad().item();
  std::printf("%-11s: losses %g %g %g;  da = %g, dw = %g, dM_0 = %g\n", method, losses[0],
              losses[1], losses[2], da, dw, G.item());
  toy.a.zero_grad();
  toy.w.zero_grad();
  return losses == std::vector{4.5, 0.5, 1.125} && da == -4.0 && dw == 4.875 && G.item() == 6.25;
}

}  // namespace

int main() {
  Toy toy;
  const std::vector<Segment> window{segment(1, 0), segment(-1, 1), segment(2, 3)};
  const State start = toy.initial_state(1);
  WindowOptions options;
  options.scale = LossScale::sum;

  const Tensor G = spelled_out(toy, window);
  bool right = is_right("spelled out", {4.5, 0.5, 1.125}, G, toy);
  const WindowResult replayed = mrbp(toy, window, start, RngKey{1}, options);
  right &= is_right("mrbp", replayed.segment_losses, replayed.entry_gradient[0].value, toy);
  const WindowResult unrolled = bptt(toy, window, start, RngKey{1}, options);
  right &= is_right("bptt", unrolled.segment_losses, unrolled.entry_gradient[0].value, toy);

  // What it is for: the peak of a long window.
  std::printf("segments   bptt peak   mrbp peak   growth in bytes\n");
  std::int64_t before[2] = {0, 0};
  for (const int count : {4, 8, 16, 32, 64}) {
    const std::vector<Segment> longer(static_cast<std::size_t>(count), segment(1, 0));
    std::int64_t peaks[2];
    for (int i = 0; i < 2; ++i) {
      toy.a.zero_grad();
      toy.w.zero_grad();
      const PeakScope peak;
      (i == 0 ? bptt : mrbp)(toy, longer, start, RngKey{1}, options);
      peaks[i] = peak.growth();
    }
    std::printf("%8d  %10d  %10d", count, static_cast<int>(peaks[0]), static_cast<int>(peaks[1]));
    if (count > 4)
      std::printf("   %g and %g a segment", static_cast<double>(peaks[0] - before[0]) / (count / 2),
                  static_cast<double>(peaks[1] - before[1]) / (count / 2));
    std::printf("\n");
    right &= count == 4 || peaks[1] - before[1] == count / 2 * 8;
    before[0] = peaks[0];
    before[1] = peaks[1];
  }
  return right ? 0 : 1;
}
