#include "memformer/replay/checkpointed.h"

#include <memory>

#include "autograd/replay.h"
#include "memformer/replay/bptt.h"

namespace mf {
namespace {

/// A recurrence whose step is one entry of the tape, whatever the step of `model` records.
class Checkpointed final : public Recurrence {
 public:
  Checkpointed(const Recurrence& model, bool check_finite)
      : model_(model), check_finite_(check_finite) {}

  State initial_state(std::int64_t batch) const override { return model_.initial_state(batch); }
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    return model_.next_state(pass, segment, state);
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override;
  std::vector<Parameter> parameters() const override { return model_.parameters(); }

 private:
  StepResult run(const Pass& pass, const Segment& segment, const LiveState& state) const;

  const Recurrence& model_;
  bool check_finite_;
};

/// What a replay hands out and takes gradients for: the losses and the differentiable state.
template <class Step, class F>
void each_output(Step& step, F&& fn) {
  if (step.loss.value.defined()) fn(step.loss);
  if (step.auxiliary.value.defined()) fn(step.auxiliary);
  for (auto& entry : step.next)
    if (entry.differentiable) fn(entry.value);
}

StepResult Checkpointed::run(const Pass& pass, const Segment& segment,
                             const LiveState& state) const {
  pass.tape.check_finite(check_finite_);
  if (!check_finite_ || pass.tape.records()) return model_.step(pass, segment, state);
  // Anomaly mode, forward: only a tape can name the op that made a NaN. It is forgotten.
  Tape tape;
  tape.check_finite(true);
  StepResult step = model_.step(Pass{tape, pass.key, pass.mode, {}}, segment, state);
  step.outputs = constant(step.outputs.value);
  each_output(step, [](Var& output) { output = constant(output.value); });
  return step;
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
        const StepResult step = run(inner, segment, live);
        std::vector<Var> results;
        each_output(step, [&](const Var& output) { results.push_back(output); });
        if (const auto kept = first.lock()) *kept = step;
        return results;
      },
      inputs);

  StepResult step = std::move(*first);
  auto output = outputs.begin();
  each_output(step, [&](Var& place) { place = *output++; });
  return step;
}

}  // namespace

WindowResult checkpointed_bptt(const Recurrence& model, std::span<const Segment> segments,
                               const State& entry, RngKey key, const WindowOptions& options) {
  check(!segments.empty(), "checkpointed_bptt: the window has no segments");
  return bptt(Checkpointed(model, options.check_finite), segments, entry, key, options);
}

}  // namespace mf
