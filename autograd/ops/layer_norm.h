#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = n * gain + bias, n = (x - mean) * rstd, rstd = 1 / sqrt(variance + epsilon), over the last
/// axis; the variance divides by the width.
/// x: [.., width], gain, bias: [width], one dtype. Result: x's shape.
/// Saves: x, gain, mean and rstd (one of each per row). Gradients, with h = gy * gain:
/// gx = rstd * (h - mean(h) - n * mean(h * n)), ggain = sum over rows of gy * n, gbias = of gy.
/// Throws Error if gain or bias is not [width].
struct LayerNorm {
  static constexpr const char* kName = "layer_norm";
  double epsilon;
  Saved x{}, gain{}, mean{}, rstd{};

  Tensor forward(Wants, const Tensor& input, const Tensor& weight, const Tensor& bias) {
    LayerNormResult result = mf::layer_norm(input, weight, bias, epsilon);
    x = input;
    gain = weight;
    mean = std::move(result.mean);
    rstd = std::move(result.rstd);
    return result.y;
  }
  void backward(const Tensor& gy, Grads& g) const {
    Tensor* const sum = g.sum(0);
    LayerNormGrads grads =
        layer_norm_backward(x, gain, mean, rstd, gy, g.wants(0), g.wants(1), g.wants(2), sum);
    if (sum == nullptr) g.add(0, std::move(grads.x));
    g.add(1, std::move(grads.gain));
    g.add(2, std::move(grads.bias));
  }
  auto saved() { return std::tie(x, gain, mean, rstd); }
};

}  // namespace ops

/// y = (x - mean) rstd gain + bias over the last axis. The result carries how to make it again
/// (Var::recompute), so that linear maps of it need not keep it. See ops::LayerNorm.
inline Var layer_norm(const Var& x, const Var& gain, const Var& bias, double epsilon = 1e-5) {
  Var y = record(ops::LayerNorm{epsilon}, x, gain, bias);
  if (y.on_tape())
    y.recompute = std::make_shared<const Recompute>(
        [x = Saved(x.value), gain = Saved(gain.value), bias = Saved(bias.value), epsilon] {
          return mf::layer_norm(x, gain, bias, epsilon).y;
        });
  return y;
}

}  // namespace mf
