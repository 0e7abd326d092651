#include "tensor/cpu/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/cpu/vector_math.h"
#include "tensor/formulas.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

// Not lambdas, as a compiler need not inline those, and a loop around a call is not vectorised.
template <class Formula, class T>
struct Value {
  [[gnu::always_inline]] T operator()(T x) const { return Formula::template value<VectorMath>(x); }
};
template <class Formula, class T>
struct Gradient {
  [[gnu::always_inline]] T operator()(T x, T y, T gy) const {
    return gy * Formula::template derivative<VectorMath>(x, y);
  }
};

}  // namespace

// x, y: same shape.
void map(Context&, Unary function, View x, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    formulas::visit(function, [&](auto formula) {
      apply<T, T>(Value<decltype(formula), T>{}, kExpCost, y, x);
    });
  });
}

// x, y, gy, gx: same shape.
void map_backward(Context&, Unary function, View x, View y, View gy, MutView gx) {
  visit_float(gx.dtype, [&](auto zero) {
    using T = decltype(zero);
    formulas::visit(function, [&](auto formula) {
      apply<T, T>(Gradient<decltype(formula), T>{}, kExpCost, gx, x, y, gy);
    });
  });
}

// a, b, y: same shape.
void combine(Context&, Binary function, View a, View b, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto run = [&](const auto& f) { apply<T>(f, 1, y, a, b); };
    switch (function) {
      case Binary::add:
        return run([](T u, T v) { return u + v; });
      case Binary::sub:
        return run([](T u, T v) { return u - v; });
      case Binary::mul:
        return run([](T u, T v) { return u * v; });
      case Binary::div:
        return run([](T u, T v) { return u / v; });
    }
  });
}

// x, y: same shape.
void affine(Context&, View x, double scale, double shift, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto s = static_cast<T>(scale);
    const auto t = static_cast<T>(shift);
    apply<T, T>([s, t](T v) { return s * v + t; }, 1, y, x);
  });
}

// x, y: same shape.
void accumulate(Context&, View x, double scale, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto s = static_cast<T>(scale);
    apply<T>([s](T old, T v) { return old + s * v; }, 1, y, y, x);
  });
}

// condition, a, b, y: same shape.
void select(Context&, View condition, View a, View b, MutView y) {
  visit_any(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    apply<T, std::uint8_t>([](std::uint8_t c, T u, T v) { return c != 0 ? u : v; }, 1, y, condition,
                           a, b);
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
