#include "cuda/device_math.cuh"
#include "cuda/each.cuh"
#include "cuda/kernels.h"
#include "tensor/formulas.h"

namespace mf::cuda {
namespace device {

// The function is an argument, not a template parameter: a branch that all threads take alike costs
// nothing beside the memory, and a kernel for each function would cost compile time.

template <class T>
struct Map {
  static constexpr int K = 2;
  Unary function;
  const T* x;
  T* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const {
    const T in = x[at[0]];
    formulas::visit(function, [&](auto formula) {
      y[at[1]] = decltype(formula)::template value<DeviceMath>(in);
    });
  }
};

template <class T>
struct MapBackward {
  static constexpr int K = 4;
  Unary function;
  const T *x, *y, *gy;
  T* gx;

  __device__ void operator()(const std::int64_t (&at)[K]) const {
    const T in = x[at[0]];
    const T out = y[at[1]];
    const T gradient = gy[at[2]];
    formulas::visit(function, [&](auto formula) {
      gx[at[3]] = gradient * decltype(formula)::template derivative<DeviceMath>(in, out);
    });
  }
};

template <class T>
struct MapAndDifferentiate {
  Unary function;
  const T* x;
  T *gx, *y;

  __device__ void operator()(std::int64_t i) const {
    const T in = x[i];
    const T gradient = gx[i];
    formulas::visit(function, [&](auto formula) {
      const T out = decltype(formula)::template value<DeviceMath>(in);
      gx[i] = gradient * decltype(formula)::template derivative<DeviceMath>(in, out);
      y[i] = out;
    });
  }
};

template <class T>
struct Combine {
  static constexpr int K = 3;
  Binary function;
  const T *a, *b;
  T* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const {
    y[at[2]] = combined(a[at[0]], b[at[1]]);
  }
  __device__ T combined(T u, T v) const {
    switch (function) {
      case Binary::add:
        return u + v;
      case Binary::sub:
        return u - v;
      case Binary::mul:
        return u * v;
      case Binary::div:
        break;
    }
    return u / v;
  }
};

template <class T>
struct Affine {
  static constexpr int K = 2;
  T scale, shift;
  const T* x;
  T* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const {
    y[at[1]] = scale * x[at[0]] + shift;
  }
};

template <class T>
struct Accumulate {
  static constexpr int K = 2;
  T scale;
  const T* x;
  T* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const {
    y[at[1]] = y[at[1]] + scale * x[at[0]];
  }
};

template <class Bits>
struct Select {
  static constexpr int K = 4;
  const std::uint8_t* condition;
  const Bits *a, *b;
  Bits* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const {
    y[at[3]] = condition[at[0]] != 0 ? a[at[1]] : b[at[2]];
  }
};

}  // namespace device

// x, y: same shape.
void map(Context& context, Unary function, View x, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch_each(context, "map", device::Map<T>{function, x.as<T>(), y.as<T>()}, y.shape, x, y);
  });
}

// x, y, gy, gx: same shape.
void map_backward(Context& context, Unary function, View x, View y, View gy, MutView gx) {
  visit_float(gx.dtype, [&](auto zero) {
    using T = decltype(zero);
    const device::MapBackward<T> f{function, x.as<T>(), y.as<T>(), gy.as<T>(), gx.as<T>()};
    launch_each(context, "map_backward", f, gx.shape, x, y, gy, gx);
  });
}

// x, gx, y: same shape, contiguous.
void map_and_differentiate(Context& context, Unary function, View x, MutView gx, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const device::MapAndDifferentiate<T> f{function, x.as<T>(), gx.as<T>(), y.as<T>()};
    launch_each(context, "map_and_differentiate", f, y.shape.elements());
  });
}

// a, b, y: same shape.
void combine(Context& context, Binary function, View a, View b, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const device::Combine<T> f{function, a.as<T>(), b.as<T>(), y.as<T>()};
    launch_each(context, "combine", f, y.shape, a, b, y);
  });
}

// x, y: same shape.
void affine(Context& context, View x, double scale, double shift, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const device::Affine<T> f{static_cast<T>(scale), static_cast<T>(shift), x.as<T>(), y.as<T>()};
    launch_each(context, "affine", f, y.shape, x, y);
  });
}

// x, y: same shape.
void accumulate(Context& context, View x, double scale, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    const device::Accumulate<T> f{static_cast<T>(scale), x.as<T>(), y.as<T>()};
    launch_each(context, "accumulate", f, y.shape, x, y);
  });
}

// condition, a, b, y: same shape.
void select(Context& context, View condition, View a, View b, MutView y) {
  visit_bits(y.dtype, [&](auto zero) {
    using Bits = decltype(zero);
    const device::Select<Bits> f{condition.as<std::uint8_t>(), a.as<Bits>(), b.as<Bits>(),
                                 y.as<Bits>()};
    launch_each(context, "select", f, y.shape, condition, a, b, y);
  });
}

}  // namespace mf::cuda
