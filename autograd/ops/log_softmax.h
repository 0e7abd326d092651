#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y_i = x_i - log sum_j exp(x_j), along `axis`.
/// x: f32|f64, any shape of rank >= 1. Result: same shape and dtype.
/// Saves: y. Gradient: gx = gy - exp(y) * sum(gy).
/// Throws Error if axis is out of range.
struct LogSoftmax {
  static constexpr const char* kName = "log_softmax";
  int axis;
  Saved y{};

  Tensor forward(Wants, const Tensor& x) { return y = mf::log_softmax(x, axis); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, log_softmax_backward(y, gy, axis)); }
  auto saved() { return std::tie(y); }
};

}  // namespace ops

/// y_i = x_i - log sum_j exp(x_j), along `axis`. See ops::LogSoftmax.
inline Var log_softmax(const Var& x, int axis = -1) { return record(ops::LogSoftmax{axis}, x); }

}  // namespace mf
