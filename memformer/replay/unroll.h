#pragma once

#include "memformer/replay/window.h"

namespace mf {

/// Runs segments begin..end-1 of a window on one tape, from the last of `result.states`, and sweeps
/// it. Appends the states, books the losses and returns the gradient at the state it started from.
State unroll(const Recurrence& model, std::span<const Segment> segments, std::int64_t begin,
             std::int64_t end, RngKey key, const WindowOptions& options, WindowResult& result);

}  // namespace mf
