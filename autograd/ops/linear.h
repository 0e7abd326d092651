#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = x W + b (b may be absent).
/// x: [.., in], weight: [in, out], bias: [out], one dtype. Result: [.., out].
/// Saves: x if weight needs a gradient, weight if x does. Gradients, over the R rows of x:
/// gx = gy W^T, gW = x^T gy, gb = sum of the rows of gy.
/// Throws Error if weight is not [in, out] or bias not [out].
struct Linear {
  static constexpr const char* kName = "linear";
  Saved x{}, weight{};

  Tensor forward(Wants wants, const Tensor& input, const Tensor& matrix) {
    return forward(wants, input, matrix, Tensor{});
  }
  Tensor forward(Wants wants, const Tensor& input, const Tensor& matrix, const Tensor& bias) {
    if (wants[1]) x = input;
    if (wants[0]) weight = matrix;
    has_bias = bias.defined();
    return mf::linear(input, matrix, bias);
  }
  void backward(const Tensor& gy, Grads& g) const {
    const Tensor grows = rows(gy);
    if (g.wants(0)) {
      const Tensor gx = mf::matmul(grows, weight.get().transpose());
      g.add(0, gx.reshape(gy.shape().with(gy.rank() - 1, gx.size(1))));
    }
    if (g.wants(1)) g.add(1, mf::matmul(rows(x).transpose(), grows));
    if (has_bias && g.wants(2)) g.add(2, mf::sum(grows, {0}));
  }
  auto saved() { return std::tie(x, weight); }

  /// [.., width] as [R, width].
  static Tensor rows(const Tensor& t) {
    const std::int64_t width = t.size(-1);
    return t.contiguous().reshape({t.shape().without(t.rank() - 1).elements(), width});
  }
  bool has_bias = false;
};

}  // namespace ops

inline Var linear(const Var& x, const Var& weight) { return record(ops::Linear{}, x, weight); }
inline Var linear(const Var& x, const Var& weight, const Var& bias) {
  return record(ops::Linear{}, x, weight, bias);
}

}  // namespace mf
