#include "memformer/replay/checkpointed.h"

#include <memory>

#include "autograd/replay.h"
#include "memformer/replay/bptt.h"

namespace mf {
namespace {

/// A recurrence whose step is one entry of the tape, whatever the step of `model` records.
class Checkpointed final : public WrappedRecurrence {
 public:
  explicit Checkpointed(const Recurrence& model) : WrappedRecurrence(model) {}

  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override;
};

/// What a replay hands out and takes gradients for: the losses and the differentiable state.
template <class Step, class F>
void each_output(Step& step, F&& fn) {
  if (step.loss.value.defined()) fn(step.loss);
  if (step.auxiliary.value.defined()) fn(step.auxiliary);
  for (auto& entry : step.next)
    if (entry.differentiable) fn(entry.value);
}

StepResult Checkpointed::step(const Pass& pass, const Segment& segment,
                              const LiveState& state) const {
  std::vector<Var> inputs;
  LiveState names = state;  // without the values, which the tape's entry keeps
  for (auto& entry : names) inputs.push_back(std::exchange(entry.value, {}));

  // The first run leaves all of its step here; of the second one only gradients are wanted.
  const auto first = std::make_shared<StepResult>();
  const std::vector<Var> outputs = replay(
      pass,
      [this, &segment, names, first = std::weak_ptr(first)](const Pass& inner,
                                                            std::span<const Var> values) {
        LiveState live = names;
        for (std::size_t i = 0; i < live.size(); ++i) live[i].value = values[i];
        const StepResult step = inner_.step(inner, segment, live);
        std::vector<Var> results;
        each_output(step, [&](const Var& output) { results.push_back(output); });
        if (const auto kept = first.lock()) *kept = step;
        return results;
      },
      inputs);

  StepResult step = std::move(*first);
  step.outputs = constant(step.outputs.value);
  auto output = outputs.begin();
  each_output(step, [&](Var& place) { place = *output++; });
  return step;
}

}  // namespace

WindowResult checkpointed_bptt(const Recurrence& model, std::span<const Segment> segments,
                               const State& entry, RngKey key, const WindowOptions& options) {
  check(!segments.empty(), "checkpointed_bptt: the window has no segments");
  return bptt(Checkpointed(model), segments, entry, key, options);
}

}  // namespace mf
