#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = a + b.
/// a, b: f32|f64, one dtype; shapes broadcast. Result: the broadcast shape.
/// Saves: nothing. Gradients: ga = gb = gy, summed over broadcast axes (by the tape, here and
/// below). Throws Error if dtypes differ or shapes do not broadcast.
struct Add {
  static constexpr const char* kName = "add";

  Tensor forward(Wants, const Tensor& a, const Tensor& b) const { return mf::add(a, b); }
  void backward(const Tensor& gy, Grads& g) const {
    g.add(0, gy);
    g.add(1, gy);
  }
  auto saved() { return std::tie(); }
};

/// y = a - b, shapes as in `add`.
/// Saves: nothing. Gradients: ga = gy, gb = -gy.
struct Sub {
  static constexpr const char* kName = "sub";

  Tensor forward(Wants, const Tensor& a, const Tensor& b) const { return mf::sub(a, b); }
  void backward(const Tensor& gy, Grads& g) const {
    g.add(0, gy);
    if (g.wants(1)) g.add(1, mf::negative(gy));
  }
  auto saved() { return std::tie(); }
};

/// y = a * b, elementwise, shapes as in `add`.
/// Saves: b if a needs a gradient, a if b does. Gradients: ga = gy * b, gb = gy * a.
struct Mul {
  static constexpr const char* kName = "mul";
  Saved a{}, b{};

  Tensor forward(Wants wants, const Tensor& left, const Tensor& right) {
    if (wants[1]) a = left;
    if (wants[0]) b = right;
    return mf::mul(left, right);
  }
  void backward(const Tensor& gy, Grads& g) const {
    if (g.wants(0)) g.add(0, mf::mul(gy, b));
    if (g.wants(1)) g.add(1, mf::mul(gy, a));
  }
  auto saved() { return std::tie(a, b); }
};

/// y = a / b, elementwise, shapes as in `add`.
/// Saves: b, and a if b needs a gradient. Gradients: ga = gy / b, gb = -(gy / b) (a / b).
struct Div {
  static constexpr const char* kName = "div";
  Saved a{}, b{};

  Tensor forward(Wants wants, const Tensor& left, const Tensor& right) {
    if (wants[1]) a = left;
    b = right;
    return mf::div(left, right);
  }
  void backward(const Tensor& gy, Grads& g) const {
    const Tensor ratio = mf::div(gy, b);
    g.add(0, ratio);
    if (g.wants(1)) g.add(1, mf::negative(mf::mul(ratio, mf::div(a, b))));
  }
  auto saved() { return std::tie(a, b); }
};

/// y = -x. Saves: nothing. Gradient: gx = -gy.
struct Negative {
  static constexpr const char* kName = "negative";

  Tensor forward(Wants, const Tensor& x) const { return mf::negative(x); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, mf::negative(gy)); }
  auto saved() { return std::tie(); }
};

/// y = factor * x. Saves: nothing. Gradient: gx = factor * gy.
struct Scale {
  static constexpr const char* kName = "scale";
  double factor;

  Tensor forward(Wants, const Tensor& x) const { return mf::affine(x, factor); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, mf::affine(gy, factor)); }
  auto saved() { return std::tie(); }
};

/// y = scale * x + shift. Saves: nothing. Gradient: gx = scale * gy.
struct Affine {
  static constexpr const char* kName = "affine";
  double scale, shift;

  Tensor forward(Wants, const Tensor& x) const { return mf::affine(x, scale, shift); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, mf::affine(gy, scale)); }
  auto saved() { return std::tie(); }
};

}  // namespace ops

/// y = a + b; shapes broadcast. See ops::Add.
inline Var add(const Var& a, const Var& b) { return record(ops::Add{}, a, b); }
/// y = a - b; shapes broadcast. See ops::Sub.
inline Var sub(const Var& a, const Var& b) { return record(ops::Sub{}, a, b); }
/// y = a b, elementwise; shapes broadcast. See ops::Mul.
inline Var mul(const Var& a, const Var& b) { return record(ops::Mul{}, a, b); }
/// y = a / b, elementwise; shapes broadcast. See ops::Div.
inline Var div(const Var& a, const Var& b) { return record(ops::Div{}, a, b); }
/// y = -x, gx = -gy.
inline Var negative(const Var& x) { return record(ops::Negative{}, x); }
/// y = factor x, gx = factor gy.
inline Var scale(const Var& x, double factor) { return record(ops::Scale{factor}, x); }
/// y = scale x + shift, gx = scale gy.
inline Var affine(const Var& x, double scale, double shift) {
  return record(ops::Affine{scale, shift}, x);
}

}  // namespace mf
