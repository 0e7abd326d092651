#pragma once

#include <atomic>
#include <cstdint>

namespace mf {

namespace detail {

inline std::atomic<int> work_counters{0};
inline std::atomic<std::int64_t> multiply_adds_done{0};

/// Notes the multiply-adds of a product, if somebody counts; costs one load otherwise.
inline void count_multiply_adds(std::int64_t count) {
  if (work_counters.load(std::memory_order_relaxed) > 0) [[unlikely]]
    multiply_adds_done.fetch_add(count, std::memory_order_relaxed);
}

}  // namespace detail

/// Counts the multiply-adds of all products of the process while it lives, where tensor/math.h
/// computes them. Scopes nest. With inner extent K, T queries of width D, S keys (and one more
/// where each query has its own) and values of width E:
///   matmul, linear   elements of the result times K
///   attention        T S (D + E) for each row and head, causal or masked as the whole rectangle
///   backward         linear's as the products they are; attention's T S (D + D + D + E + E): the
///                    weights are made again, less what is not asked for
/// Sums, norms, softmax, activations and look-ups are not counted.
class MultiplyAddCount {
 public:
  /// From here on.
  MultiplyAddCount() : start_(detail::multiply_adds_done.load(std::memory_order_relaxed)) {
    detail::work_counters.fetch_add(1, std::memory_order_relaxed);
  }
  /// Counts no further.
  ~MultiplyAddCount() { detail::work_counters.fetch_sub(1, std::memory_order_relaxed); }
  MultiplyAddCount(const MultiplyAddCount&) = delete;
  MultiplyAddCount& operator=(const MultiplyAddCount&) = delete;

  /// Since the scope began.
  std::int64_t count() const {
    return detail::multiply_adds_done.load(std::memory_order_relaxed) - start_;
  }

 private:
  std::int64_t start_;
};

}  // namespace mf
