#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/vector_math.h"
#include "tensor/updates.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {

// gradient, parameter, first_moment, second_moment: contiguous, same shape.
void adam(Context&, View gradient, double scale, const AdamOptions& options, std::int64_t step,
          MutView parameter, MutView first_moment, MutView second_moment) {
  visit_float(parameter.dtype, [&](auto zero) {
    using T = decltype(zero);
    const updates::Adam<T> shared(options, scale, step);
    const T* const gradients = gradient.as<T>();
    T* const p = parameter.as<T>();
    T* const m = first_moment.as<T>();
    T* const v = second_moment.as<T>();
    for_chunks(parameter.shape.elements(), 8, [&](std::int64_t begin, std::int64_t end) {
      const updates::Adam<T> update = shared;  // the stores below might change what is shared
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i)
        update.template apply<VectorMath>(gradients[i], p[i], m[i], v[i]);
    });
  });
}

// gradient, parameter, velocity: contiguous, same shape; velocity may be absent.
void sgd(Context&, View gradient, double scale, double learning_rate, double momentum,
         double weight_decay, MutView parameter, MutView velocity) {
  visit_float(parameter.dtype, [&](auto zero) {
    using T = decltype(zero);
    const updates::Sgd<T> shared(scale, learning_rate, momentum, weight_decay);
    const T* const gradients = gradient.as<T>();
    T* const p = parameter.as<T>();
    T* const u = velocity.as<T>();
    for_chunks(parameter.shape.elements(), 4, [&](std::int64_t begin, std::int64_t end) {
      const updates::Sgd<T> update = shared;
      if (u == nullptr) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i)
          update.apply(update.regularised(gradients[i], p[i]), p[i]);
        return;
      }
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i)
        update.apply(update.regularised(gradients[i], p[i]), p[i], u[i]);
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
