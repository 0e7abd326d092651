#pragma once

#include "memformer/replay/window.h"

/// @file
/// The pieces that mrbp and bptt share: seeds, gradients of a state, bookkeeping.

namespace mf {

/// How step t of a window runs on `tape`, in every pass: with the key of its segment, so that it
/// draws the same. In anomaly mode the tape checks, and module paths begin with the segment.
Pass pass_of(Tape& tape, std::int64_t t, RngKey key, const WindowOptions& options);
/// A result that holds the entry state and room for each segment's losses.
WindowResult start_result(std::span<const Segment> segments, const State& entry);
/// Seeds the step's loss with `weight` and its auxiliary loss with 1.
void add_loss_seeds(std::vector<Seed>& seeds, const StepResult& step, double weight);
/// Seeds the next state with the gradient G that came back from the segment after it.
void add_state_seeds(std::vector<Seed>& seeds, const LiveState& next, const State& gradient);
/// The gradient at the state that entered segment `t`, after the sweep; undefined where it is not
/// differentiable, where no gradient arrived and where the boundary before `t` cuts.
State gradient_of(const Tape& tape, const LiveState& memory, std::int64_t t);
/// Notes the step's losses in the result and shows its outputs to the observer.
void book_step(WindowResult& result, std::int64_t t, const Segment& segment, const StepResult& step,
               const WindowOptions& options);
/// Shows a moment to whoever watches.
inline void show(const WindowOptions& options, const ReplayMoment& moment) {
  if (options.watch) options.watch(moment);
}
/// Sums the losses in the order of the segments, whichever order they were noted in.
void add_up_losses(WindowResult& result);

}  // namespace mf
