#include "tensor/cpu/kernels.h"
#include "tensor/cpu/strided.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {

// x, y: same shape.
void copy(Context&, View x, MutView y) {
  visit_any(x.dtype, [&](auto from) {
    visit_any(y.dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      apply<To, From>([](From value) { return static_cast<To>(value); }, 1, y, x);
    });
  });
}

// y: any shape.
void fill(Context&, MutView y, double value) {
  visit_any(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto constant = static_cast<T>(value);
    Shape still = y.strides;
    for (int axis = 0; axis < still.rank(); ++axis) still[axis] = 0;
    apply<T, T>([](T v) { return v; }, 1, y, View{&constant, y.dtype, y.shape, still});
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
