#include "memformer/replay/recurrence.h"

#include "autograd/ops/cross_entropy.h"

namespace mf {

Var summed_loss(const Var& logits, const Tensor& targets) {
  CrossEntropyOptions options;
  options.ignore_index = kIgnore;
  options.reduction = CrossEntropyOptions::Reduction::sum;
  return cross_entropy(logits, targets, options);
}

StepValues evaluate_step(const Recurrence& model, const Segment& segment, const State& state) {
  Tape off = Tape::off();
  const StepResult step = model.step(Pass{off, {}, Mode::eval, {}}, segment, constants_of(state));
  return {step.outputs.value, step.loss.value, values_of(step.next)};
}

}  // namespace mf
