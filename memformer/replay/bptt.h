#pragma once

#include "memformer/replay/window.h"

namespace mf {

/// Full unrolling: all segments on one tape, one sweep. The oracle of mrbp: same results, same
/// bits, in the memory of all segments. `result.states` are the same, and so is `entry_gradient`.
/// Cost: eq. C1.
WindowResult bptt(const Recurrence& model, std::span<const Segment> segments, const State& entry,
                  RngKey key, const WindowOptions& options = {});

}  // namespace mf
