#pragma once

#include "autograd/ops/elementwise.h"
#include "nn/dropout.h"
#include "nn/linear.h"

namespace mf {

enum class Activation { gelu, relu, silu };

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

/// y = activation(x W_up + b_up) W_down + b_down. x: [.., width]. Dropout on the hidden values.
struct FeedForward {
  Linear up;
  Linear down;
  Activation activation = Activation::gelu;
  double dropout_probability = 0.0;

  FeedForward() = default;
  FeedForward(std::int64_t width, std::int64_t hidden, Activation function, double dropout_p,
              RngKey key, DType dtype)
      : up(width, hidden, true, key.at("up"), dtype),
        down(hidden, width, true, key.at("down"), dtype),
        activation(function),
        dropout_probability(dropout_p) {}

  Var operator()(const Pass& pass, const Var& x) const {
    const ModuleScope scope(pass);
    const Var hidden = activate(activation, up(pass.at("up"), x));
    return down(pass.at("down"), dropout(pass.at("dropout"), hidden, dropout_probability));
  }

  template <class F>
  void each(F&& fn) const {
    fn("up", up);
    fn("down", down);
  }
};

}  // namespace mf
