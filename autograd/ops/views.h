#pragma once

#include <array>
#include <vector>

#include "autograd/op.h"
#include "tensor/math.h"

/// @file
/// Ops that move no numbers: the result is a view of x's block, and nothing is saved.

namespace mf {

namespace ops {

/// y = elements begin..end-1 of x along `axis`.
/// Gradient: gx is gy at begin..end-1 and 0 elsewhere. Throws Error unless 0 <= begin <= end <=
/// size.
struct Slice {
  static constexpr const char* kName = "slice";
  int axis;
  std::int64_t begin, end;
  Shape shape{};  // of x

  Tensor forward(Wants, const Tensor& x) {
    shape = x.shape();
    return x.slice(axis, begin, end);
  }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, unslice(gy, shape, axis, begin)); }
  auto saved() { return std::tie(); }
};

/// Axis i of y is axis order[i] of x.
/// Gradient: gx = gy with its axes put back. Throws Error unless each axis is named once.
struct Permute {
  static constexpr const char* kName = "permute";
  std::vector<int> order;

  Tensor forward(Wants, const Tensor& x) const { return x.permute(std::span<const int>(order)); }
  void backward(const Tensor& gy, Grads& g) const {
    std::array<int, Shape::kMaxRank> inverse{};
    for (int i = 0; i < gy.rank(); ++i) {
      const int axis = resolve_axis(order[static_cast<std::size_t>(i)], gy.rank(), kName);
      inverse[static_cast<std::size_t>(axis)] = i;
    }
    g.add(0, gy.permute(std::span<const int>(inverse.data(), order.size())));
  }
  auto saved() { return std::tie(); }
};

/// y = x with axes a and b exchanged. Gradient: gx = gy with them exchanged back.
struct Transpose {
  static constexpr const char* kName = "transpose";
  int a, b;

  Tensor forward(Wants, const Tensor& x) const { return x.transpose(a, b); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, gy.transpose(a, b)); }
  auto saved() { return std::tie(); }
};

/// y = the elements of x in row-major order with another shape; at most one extent is -1 (deduced).
/// Gradient: gx = gy with x's shape. Throws Error where only a copy would do: call contiguous
/// first.
struct Reshape {
  static constexpr const char* kName = "reshape";
  Shape to;
  Shape from{};

  Tensor forward(Wants, const Tensor& x) {
    from = x.shape();
    return x.reshape(to);
  }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, gy.contiguous().reshape(from)); }
  auto saved() { return std::tie(); }
};

/// y = x repeated along axes of extent 1 and along new leading axes, without copying.
/// Gradient: gx = gy summed over the repeated axes (by the tape). Throws Error if x does not
/// broadcast.
struct Expand {
  static constexpr const char* kName = "expand";
  Shape shape;

  Tensor forward(Wants, const Tensor& x) const { return x.expand(shape); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, gy); }
  auto saved() { return std::tie(); }
};

/// y = x copied into row-major order. Gradient: gx = gy.
struct Contiguous {
  static constexpr const char* kName = "contiguous";

  Tensor forward(Wants, const Tensor& x) const { return x.contiguous(); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, gy); }
  auto saved() { return std::tie(); }
};

}  // namespace ops

/// Elements begin..end-1 along `axis`. See ops::Slice.
inline Var slice(const Var& x, int axis, std::int64_t begin, std::int64_t end) {
  return record(ops::Slice{axis, begin, end}, x);
}
/// Axis i of the result is axis order[i] of x. See ops::Permute.
inline Var permute(const Var& x, std::span<const int> order) {
  return record(ops::Permute{{order.begin(), order.end()}}, x);
}
/// The same: `permute(x, {0, 2, 1})`.
inline Var permute(const Var& x, std::initializer_list<int> order) {
  return record(ops::Permute{order}, x);
}
/// Axes a and b exchanged, the last two unless told otherwise. See ops::Transpose.
inline Var transpose(const Var& x, int a = -2, int b = -1) {
  return record(ops::Transpose{a, b}, x);
}
/// The same elements in row-major order with another shape. See ops::Reshape.
inline Var reshape(const Var& x, const Shape& shape) { return record(ops::Reshape{shape}, x); }
/// The same; one extent may be -1, which is deduced.
inline Var reshape(const Var& x, std::initializer_list<std::int64_t> extents) {
  return reshape(x, x.value.reshape(extents).shape());
}
/// x repeated along axes of extent 1 and new leading axes, without copying. See ops::Expand.
inline Var expand(const Var& x, const Shape& shape) { return record(ops::Expand{shape}, x); }
/// A row-major copy; x itself, unrecorded, where it is row-major already. See ops::Contiguous.
inline Var contiguous(const Var& x) {
  return x.value.is_contiguous() ? x : record(ops::Contiguous{}, x);
}

}  // namespace mf
