#pragma once

#include <functional>
#include <memory>

#include <cstdint>
#include <utility>

#include "tensor/tensor.h"

namespace mf {

class Tape;

/// Makes a value again from tensors that the tape holds anyway. What is cheap to make (a norm)
/// hands this to the ops that use it, so that they need not keep the value itself for backward.
using Recompute = std::function<Tensor()>;

/// A value and its place on a tape. Without a tape it is a constant. A Var lives inside one pass;
/// layers and buffers store Tensors or Parameters. `constant(t)` goes up, `v.value` goes down.
struct Var {
  Tensor value;          ///< undefined where an optional operand is left out
  Tape* tape = nullptr;  ///< null for constants; must outlive the Var
  std::int32_t id = -1;  ///< its place on the tape; -1 for constants
  std::shared_ptr<const Recompute> recompute{};  ///< how to make the value again; null for most

  /// True if what is computed with it is recorded.
  bool on_tape() const { return tape != nullptr; }
  const Shape& shape() const { return value.shape(); }            ///< Tensor::shape
  std::int64_t size(int axis) const { return value.size(axis); }  ///< Tensor::size
  int rank() const { return value.rank(); }                       ///< Tensor::rank
  DType dtype() const { return value.dtype(); }                   ///< Tensor::dtype
  Device device() const { return value.device(); }                ///< Tensor::device
};

/// A Var without a tape: no gradient flows to it.
inline Var constant(Tensor value) { return {std::move(value), nullptr, -1, nullptr}; }
/// The value's description, as describe(const Tensor&).
inline std::string describe(const Var& x) { return describe(x.value); }

}  // namespace mf
