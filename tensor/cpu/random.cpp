#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"
#include "tensor/dropout.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {

// y: contiguous.
void uniform(Context&, MutView y, RngKey key, double low, double high) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const out = y.as<T>();
    // Rounding to T must not reach `high`, which is outside the interval.
    const auto end = static_cast<T>(high);
    const T largest = low < high ? std::nextafter(end, -std::numeric_limits<T>::infinity()) : end;
    for_chunks(y.shape.elements(), 4, [&](std::int64_t begin, std::int64_t stop) {
      for (std::int64_t i = begin; i < stop; ++i) {
        const double value = low + (high - low) * key.uniform(static_cast<std::uint64_t>(i));
        out[i] = std::min(static_cast<T>(value), largest);
      }
    });
  });
}

// y: contiguous. Box-Muller: sqrt(-2 log u) cos(2 pi v), with u in (0, 1].
void normal(Context&, MutView y, RngKey key, double mean, double deviation) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* const out = y.as<T>();
    for_chunks(y.shape.elements(), 32, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto draw = 2 * static_cast<std::uint64_t>(i);
        const double u = 1.0 - key.uniform(draw);
        const double v = key.uniform(draw + 1);
        const double z = std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
        out[i] = static_cast<T>(mean + deviation * z);
      }
    });
  });
}

// x, y: contiguous, same shape.
void dropout(Context&, View x, double p, RngKey key, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* const in = x.as<T>();
    T* const out = y.as<T>();
    const DropoutRule rule(p, key);
    const auto scale = static_cast<T>(rule.scale);
    for_chunks(y.shape.elements(), 4, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const T kept = in[i] * scale;
        out[i] = rule.keep(static_cast<std::uint64_t>(i)) ? kept : T{0};
      }
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
