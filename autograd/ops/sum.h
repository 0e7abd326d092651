#pragma once

#include <vector>

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = sum of x over `axes` (over all if none is given).
/// x: f32|f64, any shape. Result: x's shape without the summed axes, or with extent 1 there
/// (`keep`). Saves: nothing. Gradient: gx = gy repeated along the summed axes. Throws Error if an
/// axis is out of range or named twice.
struct Sum {
  static constexpr const char* kName = "sum";
  std::vector<int> axes;
  bool keep;
  Shape shape{}, kept{};  // of x, and of x with extent 1 along the summed axes

  Tensor forward(Wants, const Tensor& x) {
    const Tensor y = mf::sum(x, std::span<const int>(axes), keep);
    shape = x.shape();
    kept = with_ones(shape, axes);
    return y;
  }
  void backward(const Tensor& gy, Grads& g) const {
    g.add(0, gy.contiguous().reshape(kept).expand(shape));
  }
  auto saved() { return std::tie(); }

  /// `shape` with extent 1 along `axes`, along all if there are none.
  static Shape with_ones(Shape shape, std::span<const int> axes) {
    for (int i = 0; i < shape.rank() && axes.empty(); ++i) shape[i] = 1;
    for (const int axis : axes) shape[axis] = 1;
    return shape;
  }
};

}  // namespace ops

/// The sum over `axes`, over all if there are none; they are dropped, or kept with extent 1. See
/// ops::Sum.
inline Var sum(const Var& x, std::span<const int> axes, bool keep = false) {
  return record(ops::Sum{{axes.begin(), axes.end()}, keep}, x);
}
/// The same: `sum(x, {0, 2})`.
inline Var sum(const Var& x, std::initializer_list<int> axes = {}, bool keep = false) {
  return record(ops::Sum{axes, keep}, x);
}

}  // namespace mf
