#include "memformer/replay/sweep.h"

namespace mf {
namespace {

void add_scalar_seed(std::vector<Seed>& seeds, const Var& loss, double weight) {
  if (loss.on_tape())
    seeds.push_back({loss, scalar(weight, loss.dtype(), loss.value.device())});
}

}  // namespace

void add_loss_seeds(std::vector<Seed>& seeds, const StepResult& step, double weight) {
  add_scalar_seed(seeds, step.loss, weight);
  add_scalar_seed(seeds, step.auxiliary, 1.0);
}

void add_state_seeds(std::vector<Seed>& seeds, const LiveState& next, const State& gradient) {
  for (std::size_t i = 0; i < gradient.size(); ++i)
    if (gradient[i].value.defined() && next[i].value.on_tape())
      seeds.push_back({next[i].value, gradient[i].value});
}

State gradient_of(const Tape& tape, const LiveState& memory, std::int64_t t) {
  State gradient;
  for (const auto& entry : memory) {
    const bool arrives = entry.value.on_tape() && tape.reached(entry.value) &&
                         !entry.boundary.cuts_before(t);
    gradient.push_back({entry.name, arrives ? tape.grad(entry.value) : Tensor{},
                        entry.differentiable, entry.boundary});
  }
  return gradient;
}

void book_step(WindowResult& result, std::int64_t t, const Segment& segment, const StepResult& step,
               const WindowOptions& options) {
  if (step.loss.value.defined()) {
    result.segment_losses[static_cast<std::size_t>(t)] = step.loss.value.item();
    result.loss_sum += step.loss.value.item();
  }
  if (step.auxiliary.value.defined()) result.auxiliary += step.auxiliary.value.item();
  if (options.observe) options.observe(t, segment, step.outputs.value);
}

}  // namespace mf
