#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y[.., j] = x[.., index[.., j]], along the last axis.
/// x: f32|f64 [.., n], index: i32 [.., m], whose leading axes broadcast to x's. Result: [.., m].
/// Saves: index. Gradient: gx has gy added at index, in the order of j.
/// Throws Error if an index is outside 0..n-1; on a device its element is NaN instead.
struct Gather {
  static constexpr const char* kName = "gather";
  Saved index;
  std::int64_t n = 0;

  Tensor forward(Wants, const Tensor& x) {
    Tensor y = mf::gather(x, index);
    n = x.size(-1);
    return y;
  }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, scatter(index, gy, n)); }
  auto saved() { return std::tie(index); }
};

}  // namespace ops

/// y[.., j] = x[.., index[.., j]], along the last axis. See ops::Gather.
inline Var gather(const Var& x, const Tensor& index) { return record(ops::Gather{index}, x); }

}  // namespace mf
