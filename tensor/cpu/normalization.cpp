#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

constexpr std::int64_t kNormCost = 4;

/// gx = base + rstd (h - mean(h) - xhat mean(h xhat)), h = gy gain, xhat = (x - mean) rstd; base
/// may be null.
template <class T>
void layer_norm_backward_row(const T* x, const T* gain, T mean, T rstd, const T* gy, const T* base,
                             std::int64_t n, T* gx) {
  const auto width = static_cast<T>(n);
  const T mean_h = sum_of<T>(n, [=](auto at) { return at(gy) * at(gain); }) / width;
  const T mean_h_xhat =
      sum_of<T>(n, [=](auto at) { return at(gy) * at(gain) * ((at(x) - mean) * rstd); }) / width;
  const auto gradient = [=](std::int64_t j) {
    const T xhat = (x[j] - mean) * rstd;
    return rstd * (gy[j] * gain[j] - mean_h - xhat * mean_h_xhat);
  };
  if (base) {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) gx[j] = base[j] + gradient(j);
  } else {
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) gx[j] = gradient(j);
  }
}

}  // namespace

// x, y [rows, width], gain, bias [width], mean, rstd [rows].
void layer_norm(Context&, View x, View gain, View bias, double epsilon, MutView y, MutView mean,
                MutView rstd) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    const T* const g = gain.as<T>();
    const T* const b = bias.as<T>();
    for_rows(rows, kNormCost, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + row * n;
      T* const out = y.as<T>() + row * n;
      const T m = sum_of(in, n) / static_cast<T>(n);
      const T variance = sum_of<T>(n, [in, m](auto at) { return (at(in) - m) * (at(in) - m); }) /
                         static_cast<T>(n);
      const T r = T{1} / std::sqrt(variance + static_cast<T>(epsilon));
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = (in[j] - m) * r * g[j] + b[j];
      mean.as<T>()[row] = m;
      rstd.as<T>()[row] = r;
    });
  });
}

// x, gy, base, gx [rows, width], gain, ggain, gbias [width], mean, rstd [rows].
void layer_norm_backward(Context&, View x, View gain, View mean, View rstd, View gy, View base,
                         MutView gx, MutView ggain, MutView gbias) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    const std::int64_t n = rows.width;
    const T* const m = mean.as<T>();
    const T* const r = rstd.as<T>();
    if (gx.data) {
      for_rows(rows, kNormCost, [&](std::int64_t row) {
        layer_norm_backward_row(x.as<T>() + row * n, gain.as<T>(), m[row], r[row],
                                gy.as<T>() + row * n, base.data ? base.as<T>() + row * n : nullptr,
                                n, gx.as<T>() + row * n);
      });
    }
    if (!ggain.data && !gbias.data) return;
    // Each job owns a block of columns and walks all rows in order, in f64.
    constexpr std::int64_t kColumns = 64;
    const std::int64_t blocks = (n + kColumns - 1) / kColumns;
    for_chunks(blocks, rows.count * std::min(n, kColumns) * 2,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t block = begin; block < end; ++block) {
                   const std::int64_t first = block * kColumns;
                   const std::int64_t columns = std::min(kColumns, n - first);
                   std::array<double, kColumns> gain_sums{};
                   std::array<double, kColumns> bias_sums{};
                   double* const gain_sum = gain_sums.data();
                   double* const bias_sum = bias_sums.data();
                   for (std::int64_t row = 0; row < rows.count; ++row) {
                     const T* const in = x.as<T>() + row * n + first;
                     const T* const g = gy.as<T>() + row * n + first;
                     const T row_mean = m[row];
                     const T row_rstd = r[row];
#pragma omp simd
                     for (std::int64_t c = 0; c < columns; ++c) {
                       gain_sum[c] += static_cast<double>(g[c] * ((in[c] - row_mean) * row_rstd));
                       bias_sum[c] += static_cast<double>(g[c]);
                     }
                   }
                   const auto store = [&](const MutView& target, const double* sums) {
                     if (!target.data) return;
                     for (std::int64_t c = 0; c < columns; ++c)
                       target.as<T>()[first + c] = static_cast<T>(sums[c]);
                   };
                   store(ggain, gain_sum);
                   store(gbias, bias_sum);
                 }
               });
  });
}

// x, y [rows, width], r [rows].
void normalize(Context&, View x, double radius, double epsilon, MutView y, MutView r) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    for_rows(rows, kNormCost, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + row * n;
      T* const out = y.as<T>() + row * n;
      const T norm = std::sqrt(dot(in, in, n) + static_cast<T>(epsilon * epsilon));
      const T scale = static_cast<T>(radius) / norm;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = in[j] * scale;
      r.as<T>()[row] = norm;
    });
  });
}

// x, gy, gx [rows, width], r [rows].
void normalize_backward(Context&, View x, View r, View gy, double radius, MutView gx) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(x.shape);
    for_rows(rows, kNormCost, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + row * n;
      const T* const g = gy.as<T>() + row * n;
      T* const out = gx.as<T>() + row * n;
      const T norm = r.as<T>()[row];
      const T along = dot(in, g, n) / norm / norm;
      const T scale = static_cast<T>(radius) / norm;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = scale * (g[j] - in[j] * along);
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
