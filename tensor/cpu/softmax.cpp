#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/vector_math.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

/// log sum_j exp x_j; -inf for a row of -inf.
template <class T>
T log_sum_exp(const T* x, std::int64_t n) {
  const T shift = exp_shift(x, n);
  const T sum =
      sum_of<T>(0, n, [x, shift](std::int64_t j) { return VectorMath::exp(x[j] - shift); });
  return shift + std::log(sum);
}

}  // namespace

// x, y [rows, width]. A row of -inf gives zeros.
void softmax(Context&, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    for_rows(rows, kExpCost, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + row * n;
      T* const out = y.as<T>() + row * n;
      const T shift = exp_shift(in, n);
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = VectorMath::exp(in[j] - shift);
      const T sum = sum_of(out, n);
      const T scale = sum == T{0} ? T{0} : T{1} / sum;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] *= scale;
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
    for_rows(rows, kExpCost, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + row * n;
      T* const out = y.as<T>() + row * n;
      const T log_sum = log_sum_exp(in, n);
      const T shift = log_sum == -std::numeric_limits<T>::infinity() ? T{0} : log_sum;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = in[j] - shift;
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
    for_rows(rows, kExpCost, [&](std::int64_t row) {
      y.as<T>()[row] = log_sum_exp(x.as<T>() + row * rows.width, rows.width);
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
