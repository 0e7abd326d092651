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

/// Throws Error where an op in place would depend on the order in which elements are taken:
/// `destination` has several of its elements in one place, or `source`, where given, is another
/// view of the same elements. Looks at views of a block without gaps only, as others may
/// interleave.
void require_writable(std::string_view operation, const Tensor& destination,
                      const Tensor& source = {});

}  // namespace mf::detail
