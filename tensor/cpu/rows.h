#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>

#include "tensor/backend.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/simd.h"
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
/// place, and without a std::function where there is one chunk.
template <class F>
void for_chunks(std::int64_t n, std::int64_t cost_per_item, const F& fn) {
  std::int64_t work = 0;
  if (n > 0 && !__builtin_mul_overflow(n, std::max<std::int64_t>(1, cost_per_item), &work) &&
      work <= detail::kParallelWork)
    return fn(std::int64_t{0}, n);
  detail::parallel_chunks(n, cost_per_item, std::cref(fn));
}

/// Calls fn(row) for each row, in parallel where the work is worth it.
template <class F>
void for_rows(Rows rows, std::int64_t cost_per_element, const F& fn) {
  for_chunks(rows.count, rows.width * cost_per_element, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) fn(row);
  });
}

/// Most rows that are worked on together, step by step, so that the processor has other rows to go
/// on with while it waits for one row's sum or maximum.
inline constexpr std::int64_t kMostRows = 16;
template <class T>
using PerRow = std::array<T, static_cast<std::size_t>(kMostRows)>;

/// Calls fn(first, count) for blocks of up to kMostRows rows, in parallel where the work is worth
/// it. No row's result may depend on its block.
template <class F>
void for_row_blocks(Rows rows, std::int64_t cost_per_element, const F& fn) {
  constexpr std::int64_t kElements = 1024;
  const std::int64_t step =
      std::clamp<std::int64_t>(kElements / std::max<std::int64_t>(rows.width, 1), 1, kMostRows);
  for_chunks(rows.count, rows.width * cost_per_element, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = begin; first < end; first += step)
      fn(first, std::min(step, end - first));
  });
}

/// Asks for a row that will be read soon, while there is other work; it need not exist.
template <class T>
[[gnu::always_inline]] inline void prefetch(const T* x, std::int64_t n) {
  constexpr std::int64_t kLine = 64 / sizeof(T);
  for (std::int64_t i = 0; i < n; i += kLine) __builtin_prefetch(x + i);
}

// A reduction is written once, as a function of `at`, which reads a vector or one element:
//   sum_of<T>(n, [=](auto at) { return at(x) * at(y); })

/// Reads elements i, i + 1, .. of an array.
struct VectorAt {
  std::int64_t i;
  template <class T>
  [[gnu::always_inline]] inline Vector<T> operator()(const T* x) const {
    return load(x + i);
  }
};
/// Reads element i.
struct ElementAt {
  std::int64_t i;
  template <class T>
  [[gnu::always_inline]] inline T operator()(const T* x) const {
    return x[i];
  }
};

/// The elements of a vector combined in a fixed tree: the upper half with the lower one, and so on.
template <std::size_t Half, class V, class F, int... I>
[[gnu::always_inline]] inline V fold_from(V v, const F& combine,
                                          std::integer_sequence<int, I...> all) {
  if constexpr (Half == 0) {
    return v;
  } else {
    constexpr int kHalf = static_cast<int>(Half);
    const V upper = __builtin_shufflevector(v, v, (I < kHalf ? I + kHalf : I)...);
    return fold_from<Half / 2>(combine(v, upper), combine, all);
  }
}
template <class T, class F>
[[gnu::always_inline]] inline T fold(Vector<T> v, const F& combine) {
  constexpr int kSize = kVector<T>;
  return fold_from<kSize / 2>(v, combine, std::make_integer_sequence<int, kSize>{})[0];
}
/// Their sum.
template <class T>
[[gnu::always_inline]] inline T fold(Vector<T> v) {
  return fold<T>(v, [](auto a, auto b) { return a + b; });
}

/// Ranges up to this are summed directly, longer ones are halved.
inline constexpr std::int64_t kDirectSum = 1024;

/// Pairwise summation with direct(begin, end) for short ranges: the error grows with the logarithm
/// of the length.
template <class T, class Direct>
T sum_in_halves(std::int64_t begin, std::int64_t end, const Direct& direct) {
  constexpr std::int64_t kStep = kVector<T>;
  if (end - begin <= kDirectSum) return direct(begin, end);
  const std::int64_t middle = begin + (end - begin) / (2 * kStep) * kStep;
  return sum_in_halves<T>(begin, middle, direct) + sum_in_halves<T>(middle, end, direct);
}

/// sum of term(at i) over begin..end-1: two vectors of running sums, folded at the end.
template <class T, class Term>
[[gnu::always_inline]] inline T sum_directly(std::int64_t begin, std::int64_t end,
                                             const Term& term) {
  constexpr std::int64_t kStep = kVector<T>;
  Vector<T> even{};
  Vector<T> odd{};
  std::int64_t i = begin;
  for (; i + 2 * kStep <= end; i += 2 * kStep) {
    even += term(VectorAt{i});
    odd += term(VectorAt{i + kStep});
  }
  if (i + kStep <= end) {
    even += term(VectorAt{i});
    i += kStep;
  }
  T sum = fold<T>(even + odd);
  for (; i < end; ++i) sum += term(ElementAt{i});
  return sum;
}
template <class T, class Term>
T sum_of(std::int64_t n, const Term& term) {
  return sum_in_halves<T>(0, n, [&](std::int64_t begin, std::int64_t end) {
    return sum_directly<T>(begin, end, term);
  });
}

/// The same for a term that is a function of the index, where vectors are left to the compiler.
template <class T, class Term>
T sum_of(std::int64_t first, std::int64_t last, const Term& term) {
  return sum_in_halves<T>(first, last, [&](std::int64_t begin, std::int64_t end) {
    std::array<T, kDirectSum> buffer;
    T* const terms = buffer.data();
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) terms[i - begin] = term(i);
    return sum_directly<T>(0, end - begin, [terms](auto at) { return at(terms); });
  });
}

template <class T>
T sum_of(const T* x, std::int64_t n) {
  return sum_of<T>(n, [x](auto at) { return at(x); });
}

template <class T>
T dot(const T* x, const T* y, std::int64_t n) {
  if (n < kVector<T>) return fold<T>(load_first(x, n) * load_first(y, n));
  return sum_of<T>(n, [x, y](auto at) { return at(x) * at(y); });
}

/// Largest of x_0..x_n-1, ignoring NaN; -inf for none.
template <class T>
T max_of(const T* x, std::int64_t n) {
  constexpr std::int64_t kStep = kVector<T>;
  constexpr T kNone = -std::numeric_limits<T>::infinity();
  const auto larger = [](auto old, auto value) { return value > old ? value : old; };
  Vector<T> even = broadcast(kNone);
  Vector<T> odd = even;
  std::int64_t i = 0;
  for (; i + 2 * kStep <= n; i += 2 * kStep) {
    even = larger(even, load(x + i));
    odd = larger(odd, load(x + i + kStep));
  }
  if (n >= kStep) {  // the rest with one or two vectors, which may see elements again
    if (i + kStep <= n) even = larger(even, load(x + i));
    odd = larger(odd, load(x + n - kStep));
    i = n;
  }
  T largest = fold<T>(larger(even, odd), larger);
  for (; i < n; ++i) largest = larger(largest, x[i]);
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
