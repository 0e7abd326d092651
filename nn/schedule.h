#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace mf {

/// Learning rate at `step` (0-based): linear warm-up over `warmup` steps to `peak`, then half a
/// cosine down to `floor * peak` at step `total`; constant at `peak` if `total` is 0.
struct Schedule {
  double peak = 1e-3;         ///< largest learning rate
  std::int64_t warmup = 100;  ///< steps to reach it
  std::int64_t total = 0;     ///< steps of warm-up and cosine together; 0: no cosine
  double floor = 0.1;         ///< share of the peak that is left at the end, and after it

  /// The learning rate of this step.
  double at(std::int64_t step) const {
    if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
    if (total <= warmup) return peak;
    const double progress =
        std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(total - warmup));
    const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
    return peak * (floor + (1.0 - floor) * cosine);
  }
};

}  // namespace mf
