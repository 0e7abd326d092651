#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

// Columns that one job reduces together: enough for full vectors, few enough for the stack.
constexpr std::int64_t kColumns = 256;

/// [outer, n, inner]
struct Extents {
  std::int64_t outer, n, inner;
  explicit Extents(const Shape& shape) : outer(shape[0]), n(shape[1]), inner(shape[2]) {}
  std::int64_t column_blocks() const { return ceil_div(inner, kColumns); }
};

/// Calls fn(outer index, first column, columns) for each block of columns.
template <class F>
void for_column_blocks(const Extents& e, const F& fn) {
  const std::int64_t blocks = e.column_blocks();
  for_chunks(e.outer * blocks, e.n * std::min(e.inner, kColumns),
             [&](std::int64_t begin, std::int64_t end) {
               for (std::int64_t job = begin; job < end; ++job) {
                 const std::int64_t first = job % blocks * kColumns;
                 fn(job / blocks, first, std::min(kColumns, e.inner - first));
               }
             });
}

/// out [columns] = sum over x [n, columns] with `stride` between rows, halving long ranges.
template <class T>
void sum_columns(const T* x, std::int64_t n, std::int64_t stride, std::int64_t columns, T* out) {
  constexpr std::int64_t kDirect = 64;
  if (n > kDirect) {
    std::array<T, kColumns> rest;
    sum_columns(x, n / 2, stride, columns, out);
    sum_columns(x + n / 2 * stride, n - n / 2, stride, columns, rest.data());
    const T* const add = rest.data();
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) out[c] += add[c];
    return;
  }
  std::fill_n(out, columns, T{0});
  for (std::int64_t i = 0; i < n; ++i) {
    const T* const row = x + i * stride;
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) out[c] += row[c];
  }
}

/// Whether `candidate` replaces `best`: NaN wins over numbers, the first of equals stays.
template <class T>
bool beats(T candidate, T best) {
  return candidate > best || (candidate != candidate && best == best);
}

}  // namespace

// x [outer, n, inner] -> y [outer, inner].
void sum(Context&, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Extents e(x.shape);
    const T* const in = x.as<T>();
    T* const out = y.as<T>();
    if (e.inner == 1) {
      return for_rows({e.outer, e.n}, 1,
                      [&](std::int64_t o) { out[o] = sum_of(in + o * e.n, e.n); });
    }
    for_column_blocks(e, [&](std::int64_t o, std::int64_t first, std::int64_t columns) {
      sum_columns(in + o * e.n * e.inner + first, e.n, e.inner, columns, out + o * e.inner + first);
    });
  });
}

// x [outer, n, inner] -> y, index [outer, inner].
void max(Context&, View x, MutView y, MutView index) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Extents e(x.shape);
    for_column_blocks(e, [&](std::int64_t o, std::int64_t first, std::int64_t columns) {
      std::array<T, kColumns> best;
      std::array<std::int32_t, kColumns> where{};
      best.fill(-std::numeric_limits<T>::infinity());
      const T* row = x.as<T>() + o * e.n * e.inner + first;
      for (std::int64_t i = 0; i < e.n; ++i, row += e.inner) {
        for (std::size_t c = 0; c < static_cast<std::size_t>(columns); ++c) {
          if (!beats(row[c], best[c])) continue;
          best[c] = row[c];
          where[c] = static_cast<std::int32_t>(i);
        }
      }
      const std::int64_t target = o * e.inner + first;
      if (y.data) std::copy_n(best.data(), columns, y.as<T>() + target);
      if (index.data) std::copy_n(where.data(), columns, index.as<std::int32_t>() + target);
    });
  });
}

// x: contiguous -> y: one f64.
void sum_of_squares(Context&, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.as<T>();
    *y.as<double>() = sum_of<double>(0, x.shape.elements(), [in](std::int64_t i) {
      const auto value = static_cast<double>(in[i]);
      return value * value;
    });
  });
}

// x: contiguous -> y: one f64.
void count_nonfinite(Context&, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.as<T>();
    const std::int64_t n = x.shape.elements();
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < n; ++i)
      count += in[i] - in[i] == T{0} ? 0 : 1;  // inf - inf is NaN
    *y.as<double>() = static_cast<double>(count);
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
