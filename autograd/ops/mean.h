#pragma once

#include "autograd/ops/sum.h"

namespace mf {

namespace ops {

/// y = mean of x over `axes` (over all if none is given).
/// x: f32|f64, any shape. Result: x's shape without those axes, or with extent 1 there (`keep`).
/// Saves: nothing. Gradient: gx = gy / n repeated along the axes, n elements to each mean.
/// Throws Error if an axis is out of range or named twice, or if there is nothing to average.
struct Mean {
  static constexpr const char* kName = "mean";
  std::vector<int> axes;
  bool keep;
  Shape shape{}, kept{};  // of x, and of x with extent 1 along the averaged axes

  Tensor forward(Wants, const Tensor& x) {
    const Tensor y = mf::mean(x, std::span<const int>(axes), keep);
    shape = x.shape();
    kept = Sum::with_ones(shape, axes);
    return y;
  }
  void backward(const Tensor& gy, Grads& g) const {
    std::int64_t n = 1;
    for (int i = 0; i < shape.rank(); ++i) n *= kept[i] == shape[i] ? 1 : shape[i];
    const Tensor share = mf::affine(gy, 1.0 / static_cast<double>(n));
    g.add(0, share.reshape(kept).expand(shape));
  }
  auto saved() { return std::tie(); }
};

}  // namespace ops

/// The mean over `axes`, over all if there are none; they are dropped, or kept with extent 1. See
/// ops::Mean.
inline Var mean(const Var& x, std::span<const int> axes, bool keep = false) {
  return record(ops::Mean{{axes.begin(), axes.end()}, keep}, x);
}
/// The same: `mean(x, {0, 2})`.
inline Var mean(const Var& x, std::initializer_list<int> axes = {}, bool keep = false) {
  return record(ops::Mean{axes, keep}, x);
}

}  // namespace mf
