#include "tensor/cpu/kernels.h"
#include "tensor/cpu/strided.h"
#include "tensor/cpu/vector_math.h"
#include "tensor/formulas.h"

namespace mf::cpu_kernels {
namespace {

// Elementary operations per element, for the parallel threshold.
constexpr std::int64_t kCheap = 1;
constexpr std::int64_t kTranscendental = 8;

}  // namespace

// x, y: same shape.
void map(Context&, Unary function, View x, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    formulas::visit(function, [&](auto formula) {
      using Formula = decltype(formula);
      const auto f = [](T v) { return Formula::template value<VectorMath>(v); };
      apply<T, T>(f, kTranscendental, y, x);
    });
  });
}

// x, y, gy, gx: same shape.
void map_backward(Context&, Unary function, View x, View y, View gy, MutView gx) {
  visit_float(gx.dtype, [&](auto zero) {
    using T = decltype(zero);
    formulas::visit(function, [&](auto formula) {
      using Formula = decltype(formula);
      const auto f = [](T vx, T vy, T g) {
        return g * Formula::template derivative<VectorMath>(vx, vy);
      };
      apply<T, T>(f, kTranscendental, gx, x, y, gy);
    });
  });
}

// a, b, y: same shape.
void combine(Context&, Binary function, View a, View b, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto run = [&](const auto& f) { apply<T>(f, kCheap, y, a, b); };
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
    apply<T, T>([s, t](T v) { return s * v + t; }, kCheap, y, x);
  });
}

// x, y: same shape.
void accumulate(Context&, View x, double scale, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto s = static_cast<T>(scale);
    apply<T>([s](T old, T v) { return old + s * v; }, kCheap, y, y, x);
  });
}

// condition, a, b, y: same shape.
void select(Context&, View condition, View a, View b, MutView y) {
  visit_any(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    apply<T, std::uint8_t>([](std::uint8_t c, T u, T v) { return c != 0 ? u : v; }, kCheap, y,
                           condition, a, b);
  });
}

}  // namespace mf::cpu_kernels
