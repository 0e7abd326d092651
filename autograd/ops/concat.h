#pragma once

#include <vector>

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = the parts one after the other along `axis`.
/// parts: one or more, equal dtype and shape but for the axis. Result: the axis is as long as all.
/// Saves: nothing. Gradients: each part's is its slice of gy.
/// Throws Error if the parts do not agree.
struct Concat {
  static constexpr const char* kName = "concat";
  int axis;
  std::vector<std::int64_t> sizes{};  // of each part along the axis

  Tensor forward(Wants, std::span<const Tensor> parts) {
    Tensor y = mf::concat(parts, axis);
    for (const Tensor& part : parts) sizes.push_back(part.size(axis));
    return y;
  }
  void backward(const Tensor& gy, Grads& g) const {
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      g.add(static_cast<int>(i), gy.slice(axis, begin, begin + sizes[i]));
      begin += sizes[i];
    }
  }
  auto saved() { return std::tie(); }
};

}  // namespace ops

/// The parts one after the other along `axis`. See ops::Concat.
inline Var concat(std::span<const Var> parts, int axis) { return record(ops::Concat{axis}, parts); }
/// The same: `concat({a, b}, 1)`.
inline Var concat(std::initializer_list<Var> parts, int axis) {
  return concat(std::span<const Var>(parts.begin(), parts.size()), axis);
}

}  // namespace mf
