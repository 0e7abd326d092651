#include <bit>

#include "cuda/each.cuh"
#include "cuda/kernels.h"

namespace mf::cuda {
namespace device {

template <class Bits>
struct Copy {
  static constexpr int K = 2;
  const Bits* x;
  Bits* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const { y[at[1]] = x[at[0]]; }
};

/// Between two dtypes, by way of double: it holds every value of every dtype.
struct Convert {
  static constexpr int K = 2;
  DType from, to;
  const void* x;
  void* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const { store(at[1], load(at[0])); }

  __device__ double load(std::int64_t i) const {
    switch (from) {
      case DType::f32:
        return static_cast<const float*>(x)[i];
      case DType::i32:
        return static_cast<const std::int32_t*>(x)[i];
      case DType::u8:
        return static_cast<const std::uint8_t*>(x)[i];
      case DType::f64:
        break;
    }
    return static_cast<const double*>(x)[i];
  }
  __device__ void store(std::int64_t i, double value) const {
    switch (to) {
      case DType::f32:
        static_cast<float*>(y)[i] = static_cast<float>(value);
        break;
      case DType::f64:
        static_cast<double*>(y)[i] = value;
        break;
      case DType::i32:
        static_cast<std::int32_t*>(y)[i] = static_cast<std::int32_t>(value);
        break;
      case DType::u8:
        // By way of an integer: -1 and 256 wrap, as they do on the cpu.
        static_cast<std::uint8_t*>(y)[i] =
            static_cast<std::uint8_t>(static_cast<std::int32_t>(value));
        break;
    }
  }
};

template <class Bits>
struct Fill {
  static constexpr int K = 1;
  Bits value;
  Bits* y;

  __device__ void operator()(const std::int64_t (&at)[K]) const { y[at[0]] = value; }
};

}  // namespace device

namespace {

/// The bits of `value` as an element of `dtype`, in the lowest bytes.
std::uint64_t bits_of(DType dtype, double value) {
  switch (dtype) {
    case DType::f64:
      return std::bit_cast<std::uint64_t>(value);
    case DType::f32:
      return std::bit_cast<std::uint32_t>(static_cast<float>(value));
    case DType::i32:
      return std::bit_cast<std::uint32_t>(static_cast<std::int32_t>(value));
    case DType::u8:
      break;
  }
  return static_cast<std::uint8_t>(value);
}

}  // namespace

// x, y: same shape.
void copy(Context& context, View x, MutView y) {
  if (x.dtype != y.dtype) {
    const device::Convert f{x.dtype, y.dtype, x.data, y.data};
    return launch_each(context, "copy", f, y.shape, x, y);
  }
  visit_bits(y.dtype, [&](auto zero) {
    using Bits = decltype(zero);
    launch_each(context, "copy", device::Copy<Bits>{x.as<Bits>(), y.as<Bits>()}, y.shape, x, y);
  });
}

// y: any shape.
void fill(Context& context, MutView y, double value) {
  visit_bits(y.dtype, [&](auto zero) {
    using Bits = decltype(zero);
    const device::Fill<Bits> f{static_cast<Bits>(bits_of(y.dtype, value)), y.as<Bits>()};
    launch_each(context, "fill", f, y.shape, y);
  });
}

}  // namespace mf::cuda
