#include <cmath>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {

// gradient, parameter, first_moment, second_moment: contiguous, same shape.
// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
// p = (1 - lr decay) p - lr m' / (sqrt(v') + epsilon), with m' = m / (1 - beta1^step), v' alike.
void adam(Context&, View gradient, double scale, const AdamOptions& options, std::int64_t step,
          MutView parameter, MutView first_moment, MutView second_moment) {
  visit_float(parameter.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto t = static_cast<double>(step);
    const auto gradient_scale = static_cast<T>(scale);
    const auto beta1 = static_cast<T>(options.beta1);
    const auto beta2 = static_cast<T>(options.beta2);
    const auto rest1 = static_cast<T>(1.0 - options.beta1);
    const auto rest2 = static_cast<T>(1.0 - options.beta2);
    const auto rate = static_cast<T>(options.learning_rate / (1.0 - std::pow(options.beta1, t)));
    const auto correction2 = static_cast<T>(1.0 / (1.0 - std::pow(options.beta2, t)));
    const auto epsilon = static_cast<T>(options.epsilon);
    const auto decay = static_cast<T>(1.0 - options.learning_rate * options.weight_decay);
    const T* const gradients = gradient.as<T>();
    T* const p = parameter.as<T>();
    T* const m = first_moment.as<T>();
    T* const v = second_moment.as<T>();
    for_chunks(parameter.shape.elements(), 8, [&](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const T g = gradients[i] * gradient_scale;
        m[i] = beta1 * m[i] + rest1 * g;
        v[i] = beta2 * v[i] + rest2 * (g * g);
        p[i] = decay * p[i] - rate * m[i] / (std::sqrt(v[i] * correction2) + epsilon);
      }
    });
  });
}

// gradient, parameter, velocity: contiguous, same shape; velocity may be absent. Weight decay is
// added to the gradient, as in the classic form.
void sgd(Context&, View gradient, double scale, double learning_rate, double momentum,
         double weight_decay, MutView parameter, MutView velocity) {
  visit_float(parameter.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto gradient_scale = static_cast<T>(scale);
    const auto rate = static_cast<T>(learning_rate);
    const auto keep = static_cast<T>(momentum);
    const auto decay = static_cast<T>(weight_decay);
    const T* const gradients = gradient.as<T>();
    T* const p = parameter.as<T>();
    T* const u = velocity.as<T>();
    for_chunks(parameter.shape.elements(), 4, [&](std::int64_t begin, std::int64_t end) {
      if (u == nullptr) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i)
          p[i] -= rate * (gradients[i] * gradient_scale + decay * p[i]);
        return;
      }
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        u[i] = keep * u[i] + (gradients[i] * gradient_scale + decay * p[i]);
        p[i] -= rate * u[i];
      }
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
