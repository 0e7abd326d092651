#include "memformer/replay/window.h"

namespace mf {

std::int64_t scored_targets(std::span<const Segment> segments) {
  std::int64_t scored = 0;
  for (const Segment& segment : segments) scored += segment.scored;
  return scored;
}

double loss_weight(std::span<const Segment> segments, LossScale scale) {
  const std::int64_t scored = scored_targets(segments);
  return scale == LossScale::mean && scored > 0 ? 1.0 / static_cast<double>(scored) : 1.0;
}

SlidingWindow::SlidingWindow(std::int64_t horizon, std::int64_t stride)
    : horizon_(horizon), stride_(stride) {
  check(horizon >= 1, "window: horizon {} must be at least 1", horizon);
  check(stride >= 1 && stride <= horizon, "window: stride {} must lie in 1..{}, the horizon",
        stride, horizon);
}

bool SlidingWindow::fill(const std::function<bool(Segment&)>& next) {
  while (static_cast<std::int64_t>(segments_.size()) < horizon_) {
    Segment segment;
    if (!next(segment)) return false;
    segments_.push_back(std::move(segment));
  }
  return true;
}

// eq. M7: "the oldest" are at the front.
State SlidingWindow::advance(const WindowResult& result) {
  check(static_cast<std::int64_t>(result.states.size()) > stride_,
        "window: the result holds {} states, {} are needed to advance by {}; run the whole window",
        result.states.size(), stride_ + 1, stride_);
  segments_.erase(segments_.begin(), segments_.begin() + stride_);
  return result.states[static_cast<std::size_t>(stride_)];
}

}  // namespace mf
