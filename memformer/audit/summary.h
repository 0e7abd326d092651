#pragma once

#include <cstdint>

#include "memformer/model/multiply_adds.h"
#include "tensor/tensor.h"

namespace mf {

/// Of the elements of a tensor, in f64. Mean, deviation and extremes leave out what is not finite,
/// and are NaN if nothing is left.
struct Statistics {
  double mean = 0.0;          ///< of the finite elements, as the three below
  double deviation = 0.0;     ///< of the population: sqrt(mean of squares of x - mean)
  double minimum = 0.0;       ///< smallest
  double maximum = 0.0;       ///< largest
  std::int64_t nan = 0;       ///< how many elements are NaN
  std::int64_t infinite = 0;  ///< how many are infinite
};
/// Of a tensor of any dtype, on any device.
Statistics statistics_of(const Tensor& tensor);

/// Bytes of the memory of one row, M_t: slots x width.
std::int64_t memory_bytes_per_row(const ModelConfig& config);

}  // namespace mf
