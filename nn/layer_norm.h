#pragma once

#include "autograd/ops/layer_norm.h"
#include "autograd/pass.h"
#include "nn/init.h"

namespace mf {

/// y = (x - mean) / sqrt(var + epsilon) * gain + bias over the last axis, biased variance.
struct LayerNorm {
  Parameter gain;
  Parameter bias;
  double epsilon = 1e-5;

  LayerNorm() = default;
  LayerNorm(std::int64_t width, double eps, DType dtype)
      : gain(constant_parameter({width}, 1.0, dtype)),
        bias(constant_parameter({width}, 0.0, dtype)),
        epsilon(eps) {}

  Var operator()(const Pass& pass, const Var& x) const {
    const ModuleScope scope(pass);
    return layer_norm(x, pass.tape.param(gain), pass.tape.param(bias), epsilon);
  }

  template <class F>
  void each(F&& fn) const {
    fn("gain", gain);
    fn("bias", bias);
  }
};

}  // namespace mf
