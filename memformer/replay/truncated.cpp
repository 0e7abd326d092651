#include "memformer/replay/truncated.h"

#include <algorithm>

#include "memformer/replay/sweep.h"
#include "memformer/replay/unroll.h"

namespace mf {

WindowResult truncated_bptt(const Recurrence& model, std::span<const Segment> segments,
                            const State& entry, RngKey key, std::int64_t length,
                            const WindowOptions& options) {
  check(!segments.empty(), "truncated_bptt: the window has no segments");
  check(length >= 1, "truncated_bptt: length {} must be at least 1", length);
  const auto count = static_cast<std::int64_t>(segments.size());
  WindowResult result = start_result(segments, entry);
  for (std::int64_t begin = 0; begin < count; begin += length) {
    State gradient =
        unroll(model, segments, begin, std::min(begin + length, count), key, options, result);
    if (begin == 0) result.entry_gradient = std::move(gradient);
  }
  add_up_losses(result);
  return result;
}

}  // namespace mf
