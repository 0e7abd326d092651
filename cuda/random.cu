#include <cmath>

#include "cuda/each.cuh"
#include "cuda/kernels.h"
#include "tensor/dropout.h"

namespace mf::cuda {
namespace device {

template <class T>
struct Uniform {
  RngKey key;
  double low, width;
  T largest;
  T* y;

  __device__ void operator()(std::int64_t i) const {
    const auto value = static_cast<T>(low + width * key.uniform(static_cast<std::uint64_t>(i)));
    y[i] = value < largest ? value : largest;
  }
};

/// Box-Muller: sqrt(-2 log u) cos(2 pi v), with u in (0, 1].
template <class T>
struct Normal {
  RngKey key;
  double mean, deviation;
  T* y;

  __device__ void operator()(std::int64_t i) const {
    const auto draw = 2 * static_cast<std::uint64_t>(i);
    const double u = 1.0 - key.uniform(draw);
    const double v = key.uniform(draw + 1);
    // cospi needs no reduction of its argument, which takes cos a table in local memory.
    const double z = ::sqrt(-2.0 * ::log(u)) * ::cospi(2.0 * v);
    y[i] = static_cast<T>(mean + deviation * z);
  }
};

template <class T>
struct Dropout {
  DropoutRule rule;
  T scale;
  const T* x;
  T* y;

  __device__ void operator()(std::int64_t i) const {
    y[i] = rule.keep(static_cast<std::uint64_t>(i)) ? x[i] * scale : T{0};
  }
};

}  // namespace device

// y: contiguous.
void uniform(Context& context, MutView y, RngKey key, double low, double high) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    // Rounding to T must not reach `high`, which is outside the interval.
    const auto end = static_cast<T>(high);
    const T largest = low < high ? std::nextafter(end, -std::numeric_limits<T>::infinity()) : end;
    launch_each(context, "uniform", device::Uniform<T>{key, low, high - low, largest, y.as<T>()},
                y.shape.elements());
  });
}

// y: contiguous.
void normal(Context& context, MutView y, RngKey key, double mean, double deviation) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch_each(context, "normal", device::Normal<T>{key, mean, deviation, y.as<T>()},
                y.shape.elements());
  });
}

// x, y: contiguous, same shape.
void dropout(Context& context, View x, double p, RngKey key, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const DropoutRule rule(p, key);
    const device::Dropout<T> f{rule, static_cast<T>(rule.scale), x.as<T>(), y.as<T>()};
    launch_each(context, "dropout", f, y.shape.elements());
  });
}

}  // namespace mf::cuda
