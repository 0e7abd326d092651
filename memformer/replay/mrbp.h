#pragma once

#include "memformer/replay/window.h"

namespace mf {

/// Memory replay back-propagation (Algorithm 1, eq. M1 to M7): exact gradients through a window of
/// segments in the memory of one.
///
///   1. Forward, nothing recorded: M_{t+1} = memory path of (x_t, M_t); the states are kept.
///   2. Backward, newest segment first: recompute the step on a tape of its own from the kept
///      M_t; one sweep from the loss (weight 1/scored or 1), the auxiliary loss (weight 1) and the
///      next state (seed G); G becomes the gradient at M_t; the tape is freed.
///
/// Parameter gradients are added to Parameter::grad in the order in which full unrolling adds them,
/// so on the CPU they are the same bits as bptt's. Segment t draws from key.at(t) in both passes.
/// The last state written has no loss behind it and gets no gradient. Peak: the window's states,
/// plus the activations of one step. Work: bptt's, plus one memory path for all segments but the
/// last (eq. C2). Throws Error if a replayed state differs from the kept one, naming segment and
/// element.
WindowResult mrbp(const Recurrence& model, std::span<const Segment> segments, const State& entry,
                  RngKey key, const WindowOptions& options = {});

}  // namespace mf
