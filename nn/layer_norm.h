#pragma once

#include "autograd/ops/layer_norm.h"
#include "autograd/pass.h"
#include "nn/init.h"

namespace mf {

/// y = (x - mean) / sqrt(var + epsilon) * gain + bias over the last axis, biased variance.
struct LayerNorm {
  Parameter gain;         ///< [width], 1 at first
  Parameter bias;         ///< [width], 0 at first
  double epsilon = 1e-5;  ///< keeps rows of equal elements finite

  /// Without parameters; to be assigned to.
  LayerNorm() = default;
  /// For rows of `width` elements.
  LayerNorm(std::int64_t width, double eps, DType dtype)
      : gain(constant_parameter({width}, 1.0, dtype)),
        bias(constant_parameter({width}, 0.0, dtype)),
        epsilon(eps) {}

  /// x [.., width]; the result has its shape.
  Var operator()(const Pass& pass, const Var& x) const {
    const ModuleScope scope(pass);
    return layer_norm(x, pass.tape.param(gain), pass.tape.param(bias), epsilon);
  }

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("gain", gain);
    fn("bias", bias);
  }
};

}  // namespace mf
