#pragma once

#include "memformer/replay/window.h"

namespace mf {

/// Truncated back-propagation through time: chunks of `length` segments, oldest first, each
/// unrolled on a tape of its own; the state is carried from chunk to chunk, its gradient is not.
/// Equals bptt with every state detached every `length` segments, but for the order in which chunks
/// add to the parameter gradients; length >= the window is bptt itself.
WindowResult truncated_bptt(const Recurrence& model, std::span<const Segment> segments,
                            const State& entry, RngKey key, std::int64_t length,
                            const WindowOptions& options = {});

}  // namespace mf
