#include <cmath>

#include "cuda/each.cuh"
#include "cuda/kernels.h"

namespace mf::cuda {
namespace device {

/// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
/// p = (1 - lr decay) p - lr m' / (sqrt(v') + epsilon), with m' = m / (1 - beta1^step), v' alike.
template <class T>
struct Adam {
  T gradient_scale, beta1, beta2, rest1, rest2, rate, correction2, epsilon, decay;
  const T* gradient;
  T *p, *m, *v;

  __device__ void operator()(std::int64_t i) const {
    const T g = gradient[i] * gradient_scale;
    const T first = beta1 * m[i] + rest1 * g;
    const T second = beta2 * v[i] + rest2 * (g * g);
    m[i] = first;
    v[i] = second;
    p[i] = decay * p[i] - rate * first / (::sqrt(second * correction2) + epsilon);
  }
};

/// Weight decay is added to the gradient, as in the classic form.
template <class T>
struct Sgd {
  T gradient_scale, rate, momentum, decay;
  const T* gradient;
  T *p, *velocity;  // velocity may be null

  __device__ void operator()(std::int64_t i) const {
    const T g = gradient[i] * gradient_scale + decay * p[i];
    if (velocity == nullptr) {
      p[i] -= rate * g;
    } else {
      const T u = momentum * velocity[i] + g;
      velocity[i] = u;
      p[i] -= rate * u;
    }
  }
};

}  // namespace device

// gradient, parameter, first_moment, second_moment: contiguous, same shape.
void adam(Context& context, View gradient, double scale, const AdamOptions& options,
          std::int64_t step, MutView parameter, MutView first_moment, MutView second_moment) {
  visit_float(parameter.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto t = static_cast<double>(step);
    const device::Adam<T> f{
        static_cast<T>(scale),
        static_cast<T>(options.beta1),
        static_cast<T>(options.beta2),
        static_cast<T>(1.0 - options.beta1),
        static_cast<T>(1.0 - options.beta2),
        static_cast<T>(options.learning_rate / (1.0 - std::pow(options.beta1, t))),
        static_cast<T>(1.0 / (1.0 - std::pow(options.beta2, t))),
        static_cast<T>(options.epsilon),
        static_cast<T>(1.0 - options.learning_rate * options.weight_decay),
        gradient.as<T>(),
        parameter.as<T>(),
        first_moment.as<T>(),
        second_moment.as<T>()};
    launch_each(context, "adam", f, parameter.shape.elements());
  });
}

// gradient, parameter, velocity: contiguous, same shape; velocity may be absent.
void sgd(Context& context, View gradient, double scale, double learning_rate, double momentum,
         double weight_decay, MutView parameter, MutView velocity) {
  visit_float(parameter.dtype, [&](auto zero) {
    using T = decltype(zero);
    const device::Sgd<T> f{static_cast<T>(scale),    static_cast<T>(learning_rate),
                           static_cast<T>(momentum), static_cast<T>(weight_decay),
                           gradient.as<T>(),         parameter.as<T>(),
                           velocity.as<T>()};
    launch_each(context, "sgd", f, parameter.shape.elements());
  });
}

}  // namespace mf::cuda
