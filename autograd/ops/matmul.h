#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// c = a b over the last two axes; leading axes broadcast.
/// a: [.., M, K], b: [.., K, N], one dtype. Result: [.., M, N].
/// Saves: b if a needs a gradient, a if b does. Gradients: ga = gc b^T, gb = a^T gc, summed over
/// broadcast axes. Throws Error if the inner sizes differ.
struct Matmul {
  static constexpr const char* kName = "matmul";
  Saved a{}, b{};

  Tensor forward(Wants wants, const Tensor& left, const Tensor& right) {
    if (wants[1]) a = left;
    if (wants[0]) b = right;
    return mf::matmul(left, right);
  }
  void backward(const Tensor& gc, Grads& g) const {
    if (g.wants(0)) g.add(0, mf::matmul(gc, b.get().transpose()));
    if (g.wants(1)) g.add(1, mf::matmul(a.get().transpose(), gc));
  }
  auto saved() { return std::tie(a, b); }
};

}  // namespace ops

/// c = a b over the last two axes; leading axes broadcast. See ops::Matmul.
inline Var matmul(const Var& a, const Var& b) { return record(ops::Matmul{}, a, b); }

}  // namespace mf
