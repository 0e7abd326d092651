#pragma once

#include "autograd/ops/linear.h"
#include "autograd/pass.h"
#include "nn/init.h"

namespace mf {

/// y = x W + b. x: [.., in]; W: [in, out]; b: [out] or none. Result: [.., out].
struct Linear {
  Parameter weight;  ///< W
  Parameter bias;    ///< b; undefined without bias

  /// Without parameters; to be assigned to.
  Linear() = default;
  /// W is uniform in +-1/sqrt(in), b is 0.
  Linear(std::int64_t in, std::int64_t out, bool with_bias, RngKey key, DType dtype)
      : weight(uniform_fan_in({in, out}, in, key.at("weight"), dtype)),
        bias(with_bias ? constant_parameter({out}, 0.0, dtype) : Parameter{}) {}

  /// x W + b, plus the residual if it is defined.
  Var operator()(const Pass& pass, const Var& x, const Var& residual = {}) const {
    const ModuleScope scope(pass);
    return linear(x, pass.tape.param(weight), bias.defined() ? pass.tape.param(bias) : Var{},
                  residual);
  }

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("weight", weight);
    fn("bias", bias);
  }
};

}  // namespace mf
