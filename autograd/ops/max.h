#pragma once

#include <array>

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = max of x along `axis`, which is dropped.
/// x: f32|f64, rank >= 1. Result: x's shape without the axis.
/// Saves: positions of the maxima (i32). Gradient: gx is gy at the maximum, the first of equals,
/// and 0 elsewhere. Throws Error if axis is out of range or empty.
struct Max {
  static constexpr const char* kName = "max";
  int axis;
  Saved indices{};
  Shape shape{};  // of x

  Tensor forward(Wants, const Tensor& x) {
    MaxResult result = mf::max(x, axis);
    indices = std::move(result.indices);
    shape = x.shape();
    return result.values;
  }
  void backward(const Tensor& gy, Grads& g) const {
    const int i = resolve_axis(axis, shape.rank(), kName);
    Shape column = shape.without(i);  // one index per row, the reduced axis last
    column.append(1);
    const Tensor gx =
        mf::scatter(indices.get().reshape(column), gy.contiguous().reshape(column), shape[i]);
    // Axis i of the result is the last axis of gx; the axes after it move up by one.
    std::array<int, Shape::kMaxRank> order{};
    for (int j = 0; j < shape.rank(); ++j)
      order[static_cast<std::size_t>(j)] = j < i ? j : j == i ? shape.rank() - 1 : j - 1;
    g.add(0,
          gx.permute(std::span<const int>(order.data(), static_cast<std::size_t>(shape.rank()))));
  }
  auto saved() { return std::tie(indices); }
};

}  // namespace ops

/// The largest elements along `axis`, which is dropped. See ops::Max.
inline Var max(const Var& x, int axis) { return record(ops::Max{axis}, x); }

}  // namespace mf
