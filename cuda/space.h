#pragma once

#include <cstdint>

#include "tensor/shape.h"

namespace mf::cuda {

/// The common index space of K operands, as kernels take it: trivially copyable, axes of extent 1
/// dropped, neighbouring axes merged where every operand steps through them evenly. The innermost
/// axis comes first; there is at least one.
template <int K>
struct Space {
  std::int64_t extents[Shape::kMaxRank];
  std::int64_t strides[Shape::kMaxRank][K];
  int rank = 0;

  Space(const Shape& shape, const Shape* const (&operands)[K]) {
    for (int axis = shape.rank() - 1; axis >= 0; --axis)
      if (shape[axis] != 1) append(shape[axis], axis, operands);
    if (rank == 0) {
      extents[0] = 1;
      for (int k = 0; k < K; ++k) strides[0][k] = 0;
      rank = 1;
    }
  }

#if defined(__CUDACC__)
  /// What lies between an operand's first element and its element i.
  struct Offsets {
    std::int64_t of[K];
  };

  __device__ Offsets offsets(std::int64_t i) const {
    Offsets result{};
#pragma unroll
    for (int axis = 0; axis < Shape::kMaxRank; ++axis) {
      const bool last = axis + 1 == rank;
      const std::int64_t rest = last ? 0 : i / extents[axis];
      const std::int64_t index = i - rest * extents[axis];
      for (int k = 0; k < K; ++k) result.of[k] += index * strides[axis][k];
      if (last) break;
      i = rest;
    }
    return result;
  }
#endif

 private:
  void append(std::int64_t extent, int axis, const Shape* const (&operands)[K]) {
    bool even = rank > 0;
    for (int k = 0; k < K && even; ++k)
      even = (*operands[k])[axis] == strides[rank - 1][k] * extents[rank - 1];
    if (even) {
      extents[rank - 1] *= extent;
      return;
    }
    extents[rank] = extent;
    for (int k = 0; k < K; ++k) strides[rank][k] = (*operands[k])[axis];
    ++rank;
  }
};

/// A tensor seen as [count, width of the last axis].
struct Rows {
  std::int64_t count = 1;
  std::int64_t width = 1;

  explicit Rows(const Shape& shape) {
    if (shape.rank() > 0) width = shape[-1];
    for (int axis = 0; axis + 1 < shape.rank(); ++axis) count *= shape[axis];
  }
};

}  // namespace mf::cuda
