#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// What the derivative of an elementwise function is computed from, and so what is saved.
enum class Needs : std::uint8_t {
  input,  ///< x
  result  ///< y
};

/// y_i = f(x_i) for the functions of tensor/formulas.h, where value and derivative stand.
/// x: f32|f64, any shape. Result: same shape and dtype.
/// Saves: x or y, whichever the derivative needs. Gradient: gx = gy * f'(x).
/// Throws Error if x is not floating.
template <Unary function, Needs needs>
struct Map {
  static constexpr const char* kName = [] {
    switch (function) {
      case Unary::exp:
        return "exp";
      case Unary::log:
        return "log";
      case Unary::sqrt:
        return "sqrt";
      case Unary::square:
        return "square";
      case Unary::tanh:
        return "tanh";
      case Unary::sigmoid:
        return "sigmoid";
      case Unary::relu:
        return "relu";
      case Unary::silu:
        return "silu";
      case Unary::gelu:
        return "gelu";
      case Unary::gelu_tanh:
        return "gelu_tanh";
      default:
        return "map";
    }
  }();
  Saved kept{};

  Tensor forward(Wants, const Tensor& x) {
    const Tensor y = mf::map(function, x);
    kept = needs == Needs::input ? x : y;
    return y;
  }
  /// The kept tensor stands for both x and y: the formula reads only the one it needs.
  void backward(const Tensor& gy, Grads& g) const {
    g.add(0, mf::map_backward(function, kept, kept, gy));
  }
  auto saved() { return std::tie(kept); }
};

}  // namespace ops

/// y = e^x, gx = gy y.
inline Var exp(const Var& x) { return record(ops::Map<Unary::exp, ops::Needs::result>{}, x); }
/// y = ln x, gx = gy / x.
inline Var log(const Var& x) { return record(ops::Map<Unary::log, ops::Needs::input>{}, x); }
/// y = sqrt x, gx = gy / (2 y).
inline Var sqrt(const Var& x) { return record(ops::Map<Unary::sqrt, ops::Needs::result>{}, x); }
/// y = x^2, gx = 2 gy x.
inline Var square(const Var& x) { return record(ops::Map<Unary::square, ops::Needs::input>{}, x); }
/// y = tanh x, gx = gy (1 - y^2).
inline Var tanh(const Var& x) { return record(ops::Map<Unary::tanh, ops::Needs::result>{}, x); }
/// y = 1 / (1 + e^-x), gx = gy y (1 - y).
inline Var sigmoid(const Var& x) {
  return record(ops::Map<Unary::sigmoid, ops::Needs::result>{}, x);
}
/// y = max(x, 0), gx = gy where y > 0, and 0 at 0. y > 0 exactly where x > 0, so y is enough.
inline Var relu(const Var& x) { return record(ops::Map<Unary::relu, ops::Needs::result>{}, x); }
/// y = x s(x) with s = sigmoid, gx = gy s (1 + x (1 - s)).
inline Var silu(const Var& x) { return record(ops::Map<Unary::silu, ops::Needs::input>{}, x); }
/// y = x Phi(x), Phi the normal distribution function, gx = gy (Phi(x) + x phi(x)).
inline Var gelu(const Var& x) { return record(ops::Map<Unary::gelu, ops::Needs::input>{}, x); }
/// y = x (1 + t) / 2 with t = tanh u, u = sqrt(2 / pi) (x + 0.044715 x^3): gelu, approximated. gx =
/// gy ((1 + t) / 2 + x (1 - t^2) u' / 2).
inline Var gelu_tanh(const Var& x) {
  return record(ops::Map<Unary::gelu_tanh, ops::Needs::input>{}, x);
}

}  // namespace mf
