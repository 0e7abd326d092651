#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = log sum_j exp(x_j), along `axis`, which is dropped.
/// x: f32|f64, any shape of rank >= 1. Result: x's shape without the axis.
/// Saves: x. Gradient: gx = gy * softmax(x).
/// Throws Error if axis is out of range.
struct LogSumExp {
  static constexpr const char* kName = "logsumexp";
  int axis;
  Saved x{};

  Tensor forward(Wants, const Tensor& input) {
    x = input;
    return mf::logsumexp(input, axis);
  }
  void backward(const Tensor& gy, Grads& g) const {
    const Shape column = x.get().shape().with(axis, 1);
    g.add(0, mf::mul(mf::softmax(x, axis), gy.contiguous().reshape(column)));
  }
  auto saved() { return std::tie(x); }
};

}  // namespace ops

/// y = log sum_j exp(x_j), along `axis`, which is dropped. See ops::LogSumExp.
inline Var logsumexp(const Var& x, int axis = -1) { return record(ops::LogSumExp{axis}, x); }

}  // namespace mf
