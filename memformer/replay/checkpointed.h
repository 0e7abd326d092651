#pragma once

#include "memformer/replay/window.h"

namespace mf {

/// Gradient checkpointing (Chen et al. 2016), what the paper holds MRBP against: full unrolling in
/// which each segment's step is one entry of the tape. Its inside is freed as it is computed and
/// made again, on a tape of its own, when the sweep comes to it. Same results as bptt, same bits.
/// Peak: the window's states, plus the activations of one step, as mrbp's. Work: bptt's, plus one
/// whole forward pass, where mrbp runs the memory path alone (eq. C3). `options.check_replay` is
/// not used.
WindowResult checkpointed_bptt(const Recurrence& model, std::span<const Segment> segments,
                               const State& entry, RngKey key, const WindowOptions& options = {});

}  // namespace mf
