#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/vector_math.h"
#include "tensor/formulas.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

/// log_sums [count] = log sum_j exp x_j for rows x [count, n]; -inf for a row of -inf.
template <class T>
void log_sum_exp(const T* x, std::int64_t count, std::int64_t n, T* log_sums) {
  PerRow<T> shifts, sums;
  T* const shift = shifts.data();
  T* const sum = sums.data();
  for (std::int64_t r = 0; r < count; ++r) shift[r] = exp_shift(x + r * n, n);
  for (std::int64_t r = 0; r < count; ++r) {
    prefetch(x + (r + count) * n, n);
    sum[r] = sum_of<T>(0, n, [row = x + r * n, s = shift[r]](std::int64_t j) {
      return VectorMath::exp(row[j] - s);
    });
  }
#pragma omp simd
  for (std::int64_t r = 0; r < count; ++r) log_sums[r] = shift[r] + VectorMath::log(sum[r]);
}

}  // namespace

// x, y [rows, width]. A row of -inf gives zeros.
void softmax(Context&, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    for_row_blocks(rows, kExpCost, [&](std::int64_t first, std::int64_t count) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + first * n;
      T* const out = y.as<T>() + first * n;
      PerRow<T> shifts, scales;
      T* const shift = shifts.data();
      T* const scale = scales.data();
      for (std::int64_t r = 0; r < count; ++r) shift[r] = exp_shift(in + r * n, n);
      for (std::int64_t r = 0; r < count; ++r) {
        prefetch(in + (r + count) * n, n);
#pragma omp simd
        for (std::int64_t j = r * n; j < (r + 1) * n; ++j)
          out[j] = VectorMath::exp(in[j] - shift[r]);
      }
      for (std::int64_t r = 0; r < count; ++r) {
        const T sum = sum_of(out + r * n, n);
        scale[r] = sum == T{0} ? T{0} : T{1} / sum;
      }
      for (std::int64_t r = 0; r < count; ++r) {
#pragma omp simd
        for (std::int64_t j = r * n; j < (r + 1) * n; ++j) out[j] *= scale[r];
      }
    });
  });
}

// y, gy, gx [rows, width]: gx = y (gy - sum_j gy_j y_j).
void softmax_backward(Context&, View y, View gy, MutView gx) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(y.shape);
    for_rows(rows, 2, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const T* const p = y.as<T>() + row * n;
      const T* const g = gy.as<T>() + row * n;
      T* const out = gx.as<T>() + row * n;
      const T mean = dot(p, g, n);
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = p[j] * (g[j] - mean);
    });
  });
}

// x, y [rows, width]. A row of -inf gives -inf.
void log_softmax(Context&, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    for_row_blocks(rows, kExpCost, [&](std::int64_t first, std::int64_t count) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + first * n;
      T* const out = y.as<T>() + first * n;
      PerRow<T> log_sums;
      T* const log_sum = log_sums.data();
      log_sum_exp(in, count, n, log_sum);
      for (std::int64_t r = 0; r < count; ++r) {
        const T shift = formulas::log_sum_shift(log_sum[r]);
#pragma omp simd
        for (std::int64_t j = r * n; j < (r + 1) * n; ++j) out[j] = in[j] - shift;
      }
    });
  });
}

// y, gy, gx [rows, width]: gx = gy - exp(y) sum_j gy_j.
void log_softmax_backward(Context&, View y, View gy, MutView gx) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(y.shape);
    for_rows(rows, kExpCost, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const T* const log_p = y.as<T>() + row * n;
      const T* const g = gy.as<T>() + row * n;
      T* const out = gx.as<T>() + row * n;
      const T total = sum_of(g, n);
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = g[j] - VectorMath::exp(log_p[j]) * total;
    });
  });
}

// x [rows, width] -> y [rows].
void logsumexp(Context&, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    for_row_blocks(rows, kExpCost, [&](std::int64_t first, std::int64_t count) {
      log_sum_exp(x.as<T>() + first * rows.width, count, rows.width, y.as<T>() + first);
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
