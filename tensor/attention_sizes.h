#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/backend.h"

namespace mf {

/// What follows from the sizes of attention alone (tensor/backend.h), for the kernels of every
/// device.
struct AttentionSizes {
  std::int64_t batch,  ///< B
      heads,           ///< H
      queries,         ///< T
      keys;            ///< S, without own keys
  bool causal,         ///< AttentionOptions::causal
      has_own;         ///< whether each query has a key of its own besides

  /// q [B, H, T, D], k [B, H, S, D]; own_key is shaped as q, or absent.
  AttentionSizes(const View& q, const View& k, const View& own_key, const AttentionOptions& options)
      : batch(q.shape[0]),
        heads(q.shape[1]),
        queries(q.shape[2]),
        keys(k.shape[2]),
        causal(options.causal),
        has_own(own_key.data != nullptr) {}

  // Without std::clamp and std::max, whose references take device code to local memory.

  /// Keys 0..visible-1 are those that the causal rule lets query i see.
  constexpr std::int64_t visible(std::int64_t i) const {
    if (!causal) return keys;
    const std::int64_t count = i + 1 + keys - queries;
    return count < 0 ? 0 : count < keys ? count : keys;
  }
  /// The first query that sees key j.
  constexpr std::int64_t first_query(std::int64_t j) const {
    const std::int64_t first = j + queries - keys;
    return causal && first > 0 ? first : 0;
  }
  /// Position of (b, h, i) in a [B, H, T] array.
  constexpr std::int64_t row(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return (b * heads + h) * queries + i;
  }
  /// Dropout element of query i's weight j; j = keys is the own weight.
  constexpr std::uint64_t weight(std::int64_t b, std::int64_t h, std::int64_t i,
                                 std::int64_t j) const {
    return static_cast<std::uint64_t>(row(b, h, i) * (has_own ? keys + 1 : keys) + j);
  }
};

/// d logit / d (q . k).
inline double logit_scale(const View& q, const AttentionOptions& options) {
  const double scale =
      options.scale != 0.0 ? options.scale : 1.0 / std::sqrt(static_cast<double>(q.shape[3]));
  return scale / options.temperature;
}

}  // namespace mf
