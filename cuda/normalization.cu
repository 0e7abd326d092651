#include "cuda/device_math.cuh"
#include "cuda/each.cuh"
#include "cuda/kernels.h"
#include "cuda/team.cuh"

namespace mf::cuda {
namespace device {

template <class T>
struct LayerNorm {
  std::int64_t n;
  T epsilon;
  const T *x, *gain, *bias;
  T *y, *mean, *rstd;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const in = x + row * n;
    const auto width = static_cast<T>(n);
    const T center = Team::template sum<T>(n, [&](std::int64_t j) { return in[j]; }) / width;
    const auto squared = [&](std::int64_t j) { return (in[j] - center) * (in[j] - center); };
    const T variance = Team::template sum<T>(n, squared) / width;
    const T scale = T{1} / DeviceMath::sqrt(variance + epsilon);
    Team::each(
        n, [&](std::int64_t j) { y[row * n + j] = (in[j] - center) * scale * gain[j] + bias[j]; });
    if (Team::rank() == 0) {
      mean[row] = center;
      rstd[row] = scale;
    }
  }
};

/// gx = base + rstd (h - mean(h) - xhat mean(h xhat)), h = gy gain, xhat = (x - mean) rstd; base
/// may be null, and may be gx itself.
template <class T>
struct LayerNormBackward {
  std::int64_t n;
  const T *x, *gain, *mean, *rstd, *gy, *base;
  T* gx;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const auto width = static_cast<T>(n);
    const T center = mean[row];
    const T scale = rstd[row];
    const T* const in = x + row * n;
    const T* const g = gy + row * n;
    const auto h = [&](std::int64_t j) { return g[j] * gain[j]; };
    const auto xhat = [&](std::int64_t j) { return (in[j] - center) * scale; };
    const auto product = [&](std::int64_t j) { return h(j) * xhat(j); };
    const T mean_h = Team::template sum<T>(n, h) / width;
    const T mean_h_xhat = Team::template sum<T>(n, product) / width;
    Team::each(n, [&](std::int64_t j) {
      const T gradient = scale * (h(j) - mean_h - xhat(j) * mean_h_xhat);
      gx[row * n + j] = base == nullptr ? gradient : base[row * n + j] + gradient;
    });
  }
};

/// Of a column and a block of rows: sums [blocks, 2, n] of gy xhat and of gy, in the order of the
/// rows.
template <class T>
struct ParameterSums {
  static constexpr std::int64_t kRows = 64;
  std::int64_t n, rows;
  const T *x, *mean, *rstd, *gy;
  T* sums;

  __device__ void operator()(std::int64_t i) const {
    const std::int64_t block = i / n;
    const std::int64_t column = i % n;
    const std::int64_t first = block * kRows;
    const std::int64_t last = first + kRows < rows ? first + kRows : rows;
    T gain = 0;
    T bias = 0;
    for (std::int64_t row = first; row < last; ++row) {
      const T g = gy[row * n + column];
      gain += g * ((x[row * n + column] - mean[row]) * rstd[row]);
      bias += g;
    }
    sums[2 * block * n + column] = gain;
    sums[(2 * block + 1) * n + column] = bias;
  }
};

/// The sums of the blocks, added in their order and in f64. Either result may be null.
template <class T>
struct ParameterGradients {
  std::int64_t n, blocks;
  const T* sums;
  T *ggain, *gbias;

  __device__ void operator()(std::int64_t column) const {
    double gain = 0.0;
    double bias = 0.0;
    for (std::int64_t block = 0; block < blocks; ++block) {
      gain += static_cast<double>(sums[2 * block * n + column]);
      bias += static_cast<double>(sums[(2 * block + 1) * n + column]);
    }
    if (ggain != nullptr) ggain[column] = static_cast<T>(gain);
    if (gbias != nullptr) gbias[column] = static_cast<T>(bias);
  }
};

template <class T>
struct Normalize {
  std::int64_t n;
  T radius, squared_epsilon;
  const T* x;
  T *y, *r;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const in = x + row * n;
    const T square = Team::template sum<T>(n, [&](std::int64_t j) { return in[j] * in[j]; });
    const T norm = DeviceMath::sqrt(square + squared_epsilon);
    const T scale = radius / norm;
    Team::each(n, [&](std::int64_t j) { y[row * n + j] = in[j] * scale; });
    if (Team::rank() == 0) r[row] = norm;
  }
};

template <class T>
struct NormalizeBackward {
  std::int64_t n;
  T radius;
  const T *x, *r, *gy;
  T* gx;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const in = x + row * n;
    const T* const g = gy + row * n;
    const T norm = r[row];
    const T dot = Team::template sum<T>(n, [&](std::int64_t j) { return in[j] * g[j]; });
    const T along = dot / norm / norm;
    const T scale = radius / norm;
    Team::each(n, [&](std::int64_t j) { gx[row * n + j] = scale * (g[j] - in[j] * along); });
  }
};

}  // namespace device

// x, y [rows, width], gain, bias [width], mean, rstd [rows].
void layer_norm(Context& context, View x, View gain, View bias, double epsilon, MutView y,
                MutView mean, MutView rstd) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows(x.shape);
    const device::LayerNorm<T> f{rows.width,   static_cast<T>(epsilon),
                                 x.as<T>(),    gain.as<T>(),
                                 bias.as<T>(), y.as<T>(),
                                 mean.as<T>(), rstd.as<T>()};
    launch_rows(context, "layer_norm", f, rows);
  });
}

// x, gy, base, gx [rows, width], gain, ggain, gbias [width], mean, rstd [rows].
void layer_norm_backward(Context& context, View x, View gain, View mean, View rstd, View gy,
                         View base, MutView gx, MutView ggain, MutView gbias) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows(x.shape);
    const std::int64_t n = rows.width;
    if (ggain.data || gbias.data) {
      using Sums = device::ParameterSums<T>;
      const std::int64_t blocks = ceil_div(rows.count, Sums::kRows);
      const Workspace<T> sums(context, 2 * blocks * n);
      const Sums f{n, rows.count, x.as<T>(), mean.as<T>(), rstd.as<T>(), gy.as<T>(), sums.data()};
      launch_each(context, "layer_norm_backward", f, blocks * n);
      const device::ParameterGradients<T> gradients{n, blocks, sums.data(), ggain.as<T>(),
                                                    gbias.as<T>()};
      launch_each(context, "layer_norm_backward", gradients, n);
    }
    if (gx.data) {
      const device::LayerNormBackward<T> f{
          n,          x.as<T>(),    gain.as<T>(), mean.as<T>(), rstd.as<T>(),
          gy.as<T>(), base.as<T>(), gx.as<T>()};
      launch_rows(context, "layer_norm_backward", f, rows);
    }
  });
}

// x, y [rows, width], r [rows].
void normalize(Context& context, View x, double radius, double epsilon, MutView y, MutView r) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows(x.shape);
    const device::Normalize<T> f{
        rows.width, static_cast<T>(radius), static_cast<T>(epsilon * epsilon), x.as<T>(), y.as<T>(),
        r.as<T>()};
    launch_rows(context, "normalize", f, rows);
  });
}

// x, gy, gx [rows, width], r [rows].
void normalize_backward(Context& context, View x, View r, View gy, double radius, MutView gx) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows(x.shape);
    const device::NormalizeBackward<T> f{
        rows.width, static_cast<T>(radius), x.as<T>(), r.as<T>(), gy.as<T>(), gx.as<T>()};
    launch_rows(context, "normalize_backward", f, rows);
  });
}

}  // namespace mf::cuda
