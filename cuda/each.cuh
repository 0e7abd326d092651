#pragma once

#include "cuda/launch.h"
#include "cuda/space.h"
#include "tensor/backend.h"

/// The kernel behind all that works element by element: one thread for each. What is done is a
/// trivially copyable struct with the operands' pointers; K says how many there are.
namespace mf::cuda {
namespace device {

/// Calls f(i) for i < n.
template <class F>
__global__ void __launch_bounds__(kBlock) each(const __grid_constant__ F f, std::int64_t n) {
  const std::int64_t i = thread_index();
  if (i < n) f(i);
}

/// Calls f(offsets of element i) for i < n.
template <class F>
__global__ void __launch_bounds__(kBlock)
    each_strided(const __grid_constant__ F f, const __grid_constant__ Space<F::K> space,
                 std::int64_t n) {
  const std::int64_t i = thread_index();
  if (i < n) f(space.offsets(i).of);
}

}  // namespace device

template <class F>
void launch_each(Context& context, const char* name, const F& f, std::int64_t n) {
  launch(context, name, device::each<F>, Grid::of_threads(n), f, n);
}

/// For operands with any strides, in the order of f's offsets.
template <class F, class... Views>
void launch_each(Context& context, const char* name, const F& f, const Shape& shape,
                 const Views&... views) {
  static_assert(F::K == sizeof...(Views));
  const Space<F::K> space(shape, {&views.strides...});
  const std::int64_t n = shape.elements();
  launch(context, name, device::each_strided<F>, Grid::of_threads(n), f, space, n);
}

/// Calls fn(U{}) with an unsigned integer of the size of the dtype, for kernels that only move
/// elements.
template <class Fn>
void visit_bits(DType dtype, Fn&& fn) {
  switch (size_of(dtype)) {
    case 8:
      return fn(std::uint64_t{});
    case 4:
      return fn(std::uint32_t{});
    default:
      return fn(std::uint8_t{});
  }
}

}  // namespace mf::cuda
