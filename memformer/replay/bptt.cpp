#include "memformer/replay/bptt.h"

#include "memformer/replay/sweep.h"
#include "memformer/replay/unroll.h"

namespace mf {

WindowResult bptt(const Recurrence& model, std::span<const Segment> segments, const State& entry,
                  RngKey key, const WindowOptions& options) {
  check(!segments.empty(), "bptt: the window has no segments");
  WindowResult result = start_result(segments, entry);
  result.entry_gradient =
      unroll(model, segments, 0, static_cast<std::int64_t>(segments.size()), key, options, result);
  add_up_losses(result);
  return result;
}

}  // namespace mf
