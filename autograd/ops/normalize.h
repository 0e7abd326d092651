#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = radius * x / r, r = sqrt(|x|^2 + epsilon^2), over the last axis.
/// x: f32|f64 [.., width]. Result: x's shape. epsilon > 0 keeps a row of zeros at zero.
/// Saves: x and r (one per row). Gradient: gx = radius * (gy - x (x . gy) / r^2) / r.
/// Throws Error unless radius > 0 and epsilon >= 0. Source: eq. F2.
struct Normalize {
  static constexpr const char* kName = "normalize";
  double radius, epsilon;
  Saved x{}, r{};

  Tensor forward(Wants, const Tensor& input) {
    NormalizeResult result = mf::normalize(input, radius, epsilon);
    x = input;
    r = std::move(result.norm);
    return result.y;
  }
  void backward(const Tensor& gy, Grads& g) const {
    g.add(0, normalize_backward(x, r, gy, radius));
  }
  auto saved() { return std::tie(x, r); }
};

}  // namespace ops

/// y = radius * x / sqrt(|x|^2 + epsilon^2), over the last axis. See ops::Normalize.
inline Var normalize(const Var& x, double radius, double epsilon) {
  return record(ops::Normalize{radius, epsilon}, x);
}

}  // namespace mf
