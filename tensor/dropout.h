#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/random.h"

namespace mf {

/// Which elements dropout with probability p keeps, and by what it scales them. For inner loops:
/// key.uniform(i) >= p, said with integers.
struct DropoutRule {
  RngKey key;
  std::uint64_t threshold;
  double scale;

  DropoutRule(double p, RngKey stream)
      : key(stream),
        threshold(static_cast<std::uint64_t>(std::ceil(p * 0x1p53))),
        scale(1.0 / (1.0 - p)) {}

  constexpr bool keep(std::uint64_t index) const { return (key.bits(index) >> 11) >= threshold; }
};

}  // namespace mf
