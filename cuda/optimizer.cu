#include "tensor/updates.h"

#include "cuda/device_math.cuh"
#include "cuda/each.cuh"
#include "cuda/kernels.h"

namespace mf::cuda {
namespace device {

template <class T>
struct Adam {
  updates::Adam<T> update;
  const T* gradient;
  T *p, *m, *v;

  __device__ void operator()(std::int64_t i) const {
    update.template apply<DeviceMath>(gradient[i], p[i], m[i], v[i]);
  }
};

template <class T>
struct Sgd {
  updates::Sgd<T> update;
  const T* gradient;
  T *p, *velocity;  // velocity may be null

  __device__ void operator()(std::int64_t i) const {
    const T g = update.regularised(gradient[i], p[i]);
    if (velocity == nullptr) {
      update.apply(g, p[i]);
    } else {
      update.apply(g, p[i], velocity[i]);
    }
  }
};

}  // namespace device

// gradient, parameter, first_moment, second_moment: contiguous, same shape.
void adam(Context& context, View gradient, double scale, const AdamOptions& options,
          std::int64_t step, MutView parameter, MutView first_moment, MutView second_moment) {
  visit_float(parameter.dtype, [&](auto zero) {
    using T = decltype(zero);
    const device::Adam<T> f{{options, scale, step},
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
    const device::Sgd<T> f{{scale, learning_rate, momentum, weight_decay},
                           gradient.as<T>(),
                           parameter.as<T>(),
                           velocity.as<T>()};
    launch_each(context, "sgd", f, parameter.shape.elements());
  });
}

}  // namespace mf::cuda
