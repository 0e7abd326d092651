#pragma once

#include "autograd/ops/elementwise.h"
#include "autograd/ops/feed_forward.h"
#include "nn/dropout.h"
#include "nn/linear.h"

namespace mf {

/// The function between the two products of FeedForward.
enum class Activation {
  gelu,  ///< Unary::gelu
  relu,  ///< Unary::relu
  silu   ///< Unary::silu
};

/// The function of x, elementwise.
inline Var activate(Activation activation, const Var& x) {
  switch (activation) {
    case Activation::relu:
      return relu(x);
    case Activation::silu:
      return silu(x);
    case Activation::gelu:
      break;
  }
  return gelu(x);
}

/// Its name in the kernel table.
inline Unary function_of(Activation activation) {
  switch (activation) {
    case Activation::relu:
      return Unary::relu;
    case Activation::silu:
      return Unary::silu;
    case Activation::gelu:
      break;
  }
  return Unary::gelu;
}

/// y = activation(x W_up + b_up) W_down + b_down + residual (if defined). x: [.., width]. Dropout
/// on the hidden values; without it one fused op does it all. Source: eq. E4.
struct FeedForward {
  Linear up;                                 ///< [width, hidden], with bias
  Linear down;                               ///< [hidden, width], with bias
  Activation activation = Activation::gelu;  ///< of the hidden values
  double dropout_probability = 0.0;          ///< of the hidden values

  /// Without parameters; to be assigned to.
  FeedForward() = default;
  /// Both products are initialised as Linear.
  FeedForward(std::int64_t width, std::int64_t hidden, Activation function, double dropout_p,
              RngKey key, DType dtype)
      : up(width, hidden, true, key.at("up"), dtype),
        down(hidden, width, true, key.at("down"), dtype),
        activation(function),
        dropout_probability(dropout_p) {}

  /// Result: [.., width].
  Var operator()(const Pass& pass, const Var& x, const Var& residual = {}) const {
    const ModuleScope scope(pass);
    if (!drops(pass, dropout_probability)) {
      Tape& tape = pass.tape;
      return feed_forward(x, tape.param(up.weight), tape.param(up.bias), tape.param(down.weight),
                          tape.param(down.bias), function_of(activation), residual);
    }
    const Var hidden = activate(activation, up(pass.at("up"), x));
    return down(pass.at("down"), dropout(pass.at("dropout"), hidden, dropout_probability),
                residual);
  }

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("up", up);
    fn("down", down);
  }
};

}  // namespace mf
