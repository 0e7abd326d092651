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
  Tensor value;
  Tape* tape = nullptr;
  std::int32_t id = -1;
  std::shared_ptr<const Recompute> recompute{};  ///< null for most

  bool on_tape() const { return tape != nullptr; }
  const Shape& shape() const { return value.shape(); }
  std::int64_t size(int axis) const { return value.size(axis); }
  int rank() const { return value.rank(); }
  DType dtype() const { return value.dtype(); }
  Device device() const { return value.device(); }
};

inline Var constant(Tensor value) { return {std::move(value), nullptr, -1, nullptr}; }
inline std::string describe(const Var& x) { return describe(x.value); }

}  // namespace mf
