#pragma once

#include "tensor/backend.h"
#include "tensor/tensor.h"

namespace mf::detail {

/// What kernels see. An undefined tensor becomes an absent view.
inline View view(const Tensor& x) {
  if (!x.defined()) return {};
  return {x.raw_data(), x.dtype(), x.shape(), x.strides()};
}

/// The same for writing; counts as a write in place.
inline MutView mut_view(Tensor& x) {
  if (!x.defined()) return {};
  return {x.mutable_raw_data(), x.dtype(), x.shape(), x.strides()};
}

}  // namespace mf::detail
