#pragma once

#include <cmath>

#include "autograd/parameter.h"
#include "tensor/random.h"

namespace mf {

/// A parameter with these values. Parameters are made in f64 and rounded, so that f32 and f64
/// models of one key start alike.
inline Parameter make_parameter(const Tensor& initial, DType dtype) {
  const CategoryScope category(Category::parameter);
  return Parameter(dtype == initial.dtype() ? initial.clone() : initial.to(dtype));
}

/// Uniform in +-1/sqrt(fan_in): the variance of x W is a third of x's.
inline Parameter uniform_fan_in(const Shape& shape, std::int64_t fan_in, RngKey key, DType dtype) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
  return make_parameter(uniform(shape, key, -bound, bound, DType::f64), dtype);
}

/// Normal with mean 0 and this deviation.
inline Parameter normal_parameter(const Shape& shape, double deviation, RngKey key, DType dtype) {
  return make_parameter(normal(shape, key, 0.0, deviation, DType::f64), dtype);
}

/// Every element `value`.
inline Parameter constant_parameter(const Shape& shape, double value, DType dtype) {
  return make_parameter(full(shape, value, DType::f64), dtype);
}

}  // namespace mf
