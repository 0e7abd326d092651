#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include "memformer/replay/moment.h"

namespace mf {

/// How the losses of a window become one number (eq. S4).
enum class LossScale {
  mean,  ///< the sum over the window's scored targets, divided by their number
  sum    ///< the sum itself
};

/// What mrbp, bptt, checkpointed_bptt and truncated_bptt have in common.
struct WindowOptions {
  LossScale scale = LossScale::mean;  ///< of the loss whose gradients are made
  Mode mode = Mode::train;            ///< of every step
  /// Audit: compare every replayed state bit for bit with the stored one (mrbp only).
  bool check_replay = true;
  /// Anomaly mode: the first NaN or infinity is an Error naming op, module and shapes.
  bool check_finite = false;
  /// Sees each step's outputs before they are freed (undefined where nothing was scored).
  std::function<void(std::int64_t segment, const Segment&, const Tensor& outputs)> observe{};
  /// Audit: sees the pass behind each line of Algorithm 1 (mrbp only).
  std::function<void(const ReplayMoment&)> watch{};
};

/// What a pass over a window leaves besides the gradients, which are added to Parameter::grad.
struct WindowResult {
  double loss_sum = 0.0;                    ///< over all scored targets, in nats for Memformer
  std::int64_t scored = 0;                  ///< scored targets of all segments
  double auxiliary = 0.0;                   ///< sum of the auxiliary losses
  std::vector<double> segment_losses;       ///< sums; 0 where nothing was scored
  std::vector<double> segment_auxiliaries;  ///< 0 where a step has none
  /// Losses that wait on a device until the window's work is queued, as reading one waits for it.
  /// Empty in a finished result.
  std::vector<Tensor> unread_losses,  ///< one a segment, or none
      unread_auxiliaries;             ///< the same of auxiliary losses
  /// d(loss)/d(M_t), the state that entered the window; undefined where not differentiable.
  State entry_gradient;
  /// M_t .. M_T: the state before each segment, and the one after the last.
  std::vector<State> states;

  /// loss_sum / scored; 0 where nothing was scored.
  double mean_loss() const { return scored ? loss_sum / static_cast<double>(scored) : 0.0; }
};

/// A way to the gradients of a window: bptt, mrbp and the like.
using WindowPass =
    std::function<WindowResult(const Recurrence& model, std::span<const Segment> segments,
                               const State& entry, RngKey key, const WindowOptions& options)>;

/// The weight of each scored target's loss: 1/scored or 1. Known before the sweep.
double loss_weight(std::span<const Segment> segments, LossScale scale);
/// Scored targets of all segments.
std::int64_t scored_targets(std::span<const Segment> segments);

/// A window of `horizon` segments that slides over a stream by `stride` (1..horizon): the oldest
/// segments are dropped, and the state before the oldest one kept becomes the entry state. That
/// state was made with older weights; everything after it is recomputed (eq. M7).
class SlidingWindow {
 public:
  /// Empty. Throws Error unless 1 <= stride <= horizon.
  SlidingWindow(std::int64_t horizon, std::int64_t stride);

  /// Takes segments from `next` until the window is full; returns false if the stream ended first.
  bool fill(const std::function<bool(Segment&)>& next);
  /// Those it holds, oldest first.
  std::span<const Segment> segments() const { return segments_; }
  /// Drops the oldest `stride` segments; returns the state to enter the next window with.
  State advance(const WindowResult& result);

  /// Segments of a full window.
  std::int64_t horizon() const { return horizon_; }
  /// Segments it moves on by.
  std::int64_t stride() const { return stride_; }

 private:
  std::int64_t horizon_;
  std::int64_t stride_;
  std::vector<Segment> segments_;
};

}  // namespace mf
