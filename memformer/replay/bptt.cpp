#include "memformer/replay/bptt.h"

#include "memformer/replay/unroll.h"

namespace mf {

WindowResult bptt(const Recurrence& model, std::span<const Segment> segments, const State& entry,
                  RngKey key, const WindowOptions& options) {
  check(!segments.empty(), "bptt: the window has no segments");
  WindowResult result;
  result.scored = scored_targets(segments);
  result.segment_losses.assign(segments.size(), 0.0);
  result.states.push_back(entry);
  result.entry_gradient = unroll(model, segments, 0, static_cast<std::int64_t>(segments.size()), key,
                                 options, result);
  return result;
}

}  // namespace mf
