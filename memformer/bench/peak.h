#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace mf::bench {

/// What the processor can do at most, with the instruction set that kernels use (`current_isa()`):
/// independent fused multiply-adds that never leave registers, products and sums where the set has
/// none. A clock that changes and neighbours on the machine change it by the minute, so it is
/// measured anew beside each repetition of what is compared with it.
class FmaPeak {
 public:
  /// On one thread, or on as many as kernels use (`threads()`).
  FmaPeak(DType dtype, bool all_threads) : dtype_(dtype), all_threads_(all_threads) {}

  /// FLOP/s of about `seconds` of work; NaN if the processor was not to be had, in eight trials.
  double measure(double seconds = 1e-3);

 private:
  DType dtype_;
  bool all_threads_;
  std::int64_t rounds_ = 1000;
};

/// Bytes/s, read and written, of the plainest loops: y = x and y = x + s * z.
class Bandwidth {
 public:
  /// Of arrays of `elements` each, on as many threads as kernels use.
  Bandwidth(DType dtype, std::int64_t elements);

  double copy(double seconds = 1e-3);
  double triad(double seconds = 1e-3);

 private:
  template <class Loop>
  double measure(const Loop& loop, std::int64_t arrays, double seconds);

  Tensor x_, y_, z_;
};

/// Bytes/s, read and written, of copies from one tensor of a device to another.
class CopySpeed {
 public:
  CopySpeed(DType dtype, std::int64_t elements, Device device);

  double measure(double seconds = 1e-3);

 private:
  Tensor x_, y_;
  std::int64_t times_ = 1;
};

}  // namespace mf::bench
