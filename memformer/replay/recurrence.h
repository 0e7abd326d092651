#pragma once

#include <vector>

#include "autograd/pass.h"
#include "memformer/replay/segment.h"
#include "memformer/replay/state.h"

namespace mf {

/// What one step gives. Absent parts have an undefined value.
struct StepResult {
  Var outputs;     ///< logits
  Var loss;        ///< 0-d: the *sum* over the segment's scored targets
  Var auxiliary;   ///< 0-d: a loss made inside the step, added to the window's loss with weight 1
  LiveState next;  ///< M_{t+1}
};

/// Cross-entropy in nats, summed over the scored targets: logits [B, K, vocabulary], targets i32
/// [B, K] as Segment::targets.
Var summed_loss(const Var& logits, const Tensor& targets);

/// A model that reads segments one after the other: (x_t, M_t) -> (outputs_t, M_{t+1}).
/// Back-propagation through time (mrbp, bptt, truncated) is written against this and knows nothing
/// of Memformer. A step must be repeatable: all it draws comes from pass.key, and it has no side
/// effects. It begins by replacing the state of rows that start a document by the initial state, on
/// the tape, so that the parameters behind the initial state get their gradient wherever a document
/// starts.
class Recurrence {
 public:
  virtual ~Recurrence() = default;

  /// Values for a window that continues nothing; rows are reset by their segments anyway.
  virtual State initial_state(std::int64_t batch) const = 0;
  /// The memory path only: what M_{t+1} needs, no decoder, no loss.
  virtual LiveState next_state(const Pass& pass, const Segment& segment,
                               const LiveState& state) const = 0;
  /// The whole step: outputs, losses and M_{t+1}, whose bits are those of next_state.
  virtual StepResult step(const Pass& pass, const Segment& segment,
                          const LiveState& state) const = 0;
  /// Everything that is trained, in a fixed order.
  virtual std::vector<Parameter> parameters() const = 0;

  /// Where the parameters are; segments and states must be there too.
  Device device() const {
    const std::vector<Parameter> all = parameters();
    return all.empty() ? cpu : all.front().value().device();
  }
};

/// What a step computes where nothing is trained.
struct StepValues {
  Tensor outputs;  ///< logits
  Tensor loss;     ///< StepResult::loss
  State next;      ///< M_{t+1}
};
/// One step in evaluation mode, without a tape.
StepValues evaluate_step(const Recurrence& model, const Segment& segment, const State& state);

/// A recurrence that does what `inner` does: what derives from it watches a model, or changes a
/// part of it. `inner` must outlive it.
class WrappedRecurrence : public Recurrence {
 public:
  /// Passes everything on to `inner`, which it does not copy.
  explicit WrappedRecurrence(const Recurrence& inner) : inner_(inner) {}

  State initial_state(std::int64_t batch) const override { return inner_.initial_state(batch); }
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    return inner_.next_state(pass, segment, state);
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    return inner_.step(pass, segment, state);
  }
  std::vector<Parameter> parameters() const override { return inner_.parameters(); }

 protected:
  const Recurrence& inner_;  ///< what is wrapped
};

}  // namespace mf
