#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "tensor/backend.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/target.h"

/// Loops over contiguous rows, and reductions of a row in one fixed order.
namespace mf::cpu_kernels::MEMFORMER_ISA {

/// A tensor seen as [count, width of the last axis].
struct Rows {
  std::int64_t count = 1;
  std::int64_t width = 1;
};

inline Rows rows_of(const Shape& shape) {
  Rows rows;
  if (shape.rank() > 0) rows.width = shape[-1];
  for (int i = 0; i + 1 < shape.rank(); ++i) rows.count *= shape[i];
  return rows;
}

/// parallel_chunks without copying `fn`, which may capture more than a std::function stores in
/// place.
template <class F>
void for_chunks(std::int64_t n, std::int64_t cost_per_item, const F& fn) {
  detail::parallel_chunks(n, cost_per_item, std::cref(fn));
}

/// Calls fn(row) for each row, in parallel where the work is worth it.
template <class F>
void for_rows(Rows rows, std::int64_t cost_per_element, const F& fn) {
  for_chunks(rows.count, rows.width * cost_per_element, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) fn(row);
  });
}

// Rows are reduced into this many running values, which are then folded in a fixed tree.
inline constexpr std::int64_t kLanes = 16;

/// sum of term(i) over begin..end-1. Long ranges are halved (pairwise summation), so that the error
/// grows with the logarithm of the length.
template <class T, class Term>
T sum_of(std::int64_t begin, std::int64_t end, const Term& term) {
  constexpr std::int64_t kDirect = 64 * kLanes;
  if (end - begin > kDirect) {
    const std::int64_t middle = begin + (end - begin) / (2 * kLanes) * kLanes;
    return sum_of<T>(begin, middle, term) + sum_of<T>(middle, end, term);
  }
  std::array<T, kLanes> lanes{};
  T* const lane = lanes.data();
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < kLanes; ++l) lane[l] += term(i + l);
  }
  for (std::int64_t l = 0; i < end; ++i, ++l) lane[l] += term(i);
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t l = 0; l < half; ++l) lane[l] += lane[l + half];
  }
  return lane[0];
}

template <class T>
T sum_of(const T* x, std::int64_t n) {
  return sum_of<T>(0, n, [x](std::int64_t i) { return x[i]; });
}

template <class T>
T dot(const T* x, const T* y, std::int64_t n) {
  return sum_of<T>(0, n, [x, y](std::int64_t i) { return x[i] * y[i]; });
}

/// Largest of x_0..x_n-1, ignoring NaN; -inf for none.
template <class T>
T max_of(const T* x, std::int64_t n) {
  std::array<T, kLanes> lanes;
  lanes.fill(-std::numeric_limits<T>::infinity());
  T* const lane = lanes.data();
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < kLanes; ++l) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  }
  for (; i < n; ++i) lane[0] = x[i] > lane[0] ? x[i] : lane[0];
  T largest = lane[0];
  for (std::int64_t l = 1; l < kLanes; ++l) largest = lane[l] > largest ? lane[l] : largest;
  return largest;
}

/// What to subtract before exp so that it cannot overflow: the largest element, or 0 where that is
/// infinite and the difference would be NaN.
template <class T>
T exp_shift(const T* x, std::int64_t n) {
  const T largest = max_of(x, n);
  return std::isfinite(largest) ? largest : T{0};
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
