#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/random.h"

namespace mf {

/// Which elements dropout with probability p keeps, and by what it scales them. For inner loops:
/// key.uniform(i) >= p, said with integers.
struct DropoutRule {
  RngKey key;               ///< stream of the draws
  std::uint64_t threshold;  ///< p * 2^53, rounded up
  double scale;             ///< of what is kept: 1 / (1 - p)

  /// 0 <= p < 1, unchecked.
  DropoutRule(double p, RngKey stream)
      : key(stream),
        threshold(static_cast<std::uint64_t>(std::ceil(p * 0x1p53))),
        scale(1.0 / (1.0 - p)) {}

  /// Whether element `index` of the tensor, in row-major order, is kept.
  constexpr bool keep(std::uint64_t index) const { return (key.bits(index) >> 11) >= threshold; }
};

}  // namespace mf
