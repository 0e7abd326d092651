#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y_i = exp(x_i - max x) / sum_j exp(x_j - max x), along `axis`.
/// x: f32|f64, any shape of rank >= 1. Result: same shape and dtype.
/// Saves: y. Gradient: gx = y * (gy - sum(gy * y)).
/// Throws Error if axis is out of range.
struct Softmax {
  static constexpr const char* kName = "softmax";
  int axis;
  Saved y{};

  Tensor forward(Wants, const Tensor& x) { return y = mf::softmax(x, axis); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, softmax_backward(y, gy, axis)); }
  auto saved() { return std::tie(y); }
};

}  // namespace ops

/// y_i = exp(x_i) / sum_j exp(x_j), along `axis`. See ops::Softmax.
inline Var softmax(const Var& x, int axis = -1) { return record(ops::Softmax{axis}, x); }

}  // namespace mf
