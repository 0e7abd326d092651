#include "tensor/random.h"

#include "tensor/backend.h"
#include "tensor/view.h"

namespace mf {

Tensor uniform(const Shape& shape, RngKey key, double low, double high, DType dtype,
               Device device) {
  check(is_float(dtype), "uniform: {} is not a floating type; use f32 or f64", dtype);
  Tensor result = empty(shape, dtype, device);
  backend_for(device).uniform(context_for(device), detail::mut_view(result), key, low, high);
  return result;
}

Tensor normal(const Shape& shape, RngKey key, double mean, double deviation, DType dtype,
              Device device) {
  check(is_float(dtype), "normal: {} is not a floating type; use f32 or f64", dtype);
  Tensor result = empty(shape, dtype, device);
  backend_for(device).normal(context_for(device), detail::mut_view(result), key, mean, deviation);
  return result;
}

}  // namespace mf
