#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = condition ? a : b, elementwise.
/// condition: u8, a, b: f32|f64, one dtype; all three shapes broadcast. Result: the broadcast
/// shape. Saves: condition. Gradients: ga = condition ? gy : 0, gb = condition ? 0 : gy. Throws
/// Error if condition is not u8, dtypes differ or shapes do not broadcast.
struct Where {
  static constexpr const char* kName = "where";
  Saved condition;

  Tensor forward(Wants, const Tensor& a, const Tensor& b) const {
    return mf::where(condition, a, b);
  }
  void backward(const Tensor& gy, Grads& g) const {
    const Tensor zero = scalar(0.0, gy.dtype(), gy.device());
    if (g.wants(0)) g.add(0, mf::where(condition, gy, zero));
    if (g.wants(1)) g.add(1, mf::where(condition, zero, gy));
  }
  auto saved() { return std::tie(condition); }
};

/// y = mask ? value : x, elementwise.
/// x: f32|f64, mask: u8, broadcasts to x's shape. Result: x's shape.
/// Saves: mask. Gradient: gx = mask ? 0 : gy.
/// Throws Error if mask is not u8 or does not broadcast to x.
struct MaskedFill {
  static constexpr const char* kName = "masked_fill";
  Saved mask;
  double value;

  Tensor forward(Wants, const Tensor& x) const { return fill(x, value); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, fill(gy, 0.0)); }
  auto saved() { return std::tie(mask); }

 private:
  Tensor fill(const Tensor& x, double filler) const {
    const Tensor& where = mask;
    check(where.defined() && broadcast(where.shape(), x.shape(), kName) == x.shape(),
          "masked_fill: mask {} does not broadcast to {}; give it the shape of x", where, x);
    return mf::where(where, scalar(filler, x.dtype(), x.device()), x);
  }
};

}  // namespace ops

/// condition ? a : b, elementwise; condition u8; shapes broadcast. See ops::Where.
inline Var where(const Tensor& condition, const Var& a, const Var& b) {
  return record(ops::Where{condition}, a, b);
}
/// mask ? value : x, elementwise; mask u8, broadcasts to x. See ops::MaskedFill.
inline Var masked_fill(const Var& x, const Tensor& mask, double value) {
  return record(ops::MaskedFill{mask, value}, x);
}

}  // namespace mf
