#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/scratch.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

constexpr std::int64_t kNormCost = 4;

/// Rows whose gradients of gain and bias are summed in T before they are summed in f64. It follows
/// from the width alone, as sums depend on the borders.
constexpr std::int64_t rows_of_block(std::int64_t width) {
  constexpr std::int64_t kElements = 16 * 1024;
  return std::clamp<std::int64_t>(kElements / std::max<std::int64_t>(width, 1), 16, 128);
}

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

/// gain_sum += gy xhat, bias_sum += gy.
template <class T>
void add_to_sums(const T* x, T mean, T rstd, const T* gy, std::int64_t n, T* gain_sum,
                 T* bias_sum) {
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) {
    gain_sum[j] += gy[j] * ((x[j] - mean) * rstd);
    bias_sum[j] += gy[j];
  }
}

/// to [n] = the sum of `count` rows of n numbers, `stride` apart, in their order and in f64.
template <class T>
void sum_of_rows(const T* rows, std::int64_t count, std::int64_t stride, std::int64_t n, T* to) {
  constexpr std::int64_t kColumns = 64;
  for (std::int64_t first = 0; first < n; first += kColumns) {
    const std::int64_t columns = std::min(kColumns, n - first);
    std::array<double, kColumns> sums{};
    double* const sum = sums.data();
    for (std::int64_t row = 0; row < count; ++row) {
      const T* const in = rows + row * stride + first;
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) sum[c] += static_cast<double>(in[c]);
    }
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) to[first + c] = static_cast<T>(sum[c]);
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
    for_row_blocks(rows, kNormCost, [&](std::int64_t first, std::int64_t count) {
      const std::int64_t n = rows.width;
      const T* const in = x.as<T>() + first * n;
      T* const out = y.as<T>() + first * n;
      T* const m = mean.as<T>() + first;
      T* const s = rstd.as<T>() + first;
      const auto width = static_cast<T>(n);
      for (std::int64_t r = 0; r < count; ++r) m[r] = sum_of(in + r * n, n) / width;
      for (std::int64_t r = 0; r < count; ++r) {
        const auto squared = [row = in + r * n, c = m[r]](auto at) {
          return (at(row) - c) * (at(row) - c);
        };
        const T variance = sum_of<T>(n, squared) / width;
        s[r] = T{1} / std::sqrt(variance + static_cast<T>(epsilon));
      }
      for (std::int64_t r = 0; r < count; ++r) {
        const T center = m[r];
        const T scale = s[r];
#pragma omp simd
        for (std::int64_t j = 0; j < n; ++j)
          out[r * n + j] = (in[r * n + j] - center) * scale * g[j] + b[j];
      }
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
    // A block of rows gives gx and its sums for ggain and gbias while it is in the cache.
    const std::int64_t step = rows_of_block(n);
    const std::int64_t blocks = ceil_div(rows.count, step);
    const bool has_sums = ggain.data || gbias.data;
    const Scratch<T> sums(has_sums ? blocks * 2 * n : 0);  // [blocks, 2, width]
    for_chunks(blocks, step * n * kNormCost, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        T* const gain_sum = sums.data() + block * 2 * n;
        if (has_sums) std::fill_n(gain_sum, 2 * n, T{0});
        const std::int64_t last = std::min(rows.count, (block + 1) * step);
        for (std::int64_t row = block * step; row < last; ++row) {
          const T* const in = x.as<T>() + row * n;
          const T* const g = gy.as<T>() + row * n;
          const T m = mean.as<T>()[row];
          const T r = rstd.as<T>()[row];
          if (has_sums) add_to_sums(in, m, r, g, n, gain_sum, gain_sum + n);
          if (gx.data) {
            layer_norm_backward_row(in, gain.as<T>(), m, r, g,
                                    base.data ? base.as<T>() + row * n : nullptr, n,
                                    gx.as<T>() + row * n);
          }
        }
      }
    });
    if (ggain.data) sum_of_rows(sums.data(), blocks, 2 * n, n, ggain.as<T>());
    if (gbias.data) sum_of_rows(sums.data() + n, blocks, 2 * n, n, gbias.as<T>());
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
