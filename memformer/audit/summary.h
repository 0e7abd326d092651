#pragma once

#include <cstdint>

#include "memformer/model/config.h"
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

/// Multiply-adds of one row and one full segment of L tokens, going forward: products with weights,
/// attention scores and weighted values. Embeddings, softmax, norms, activations and sums are not
/// counted, and causal attention counts as the whole square it is cut from. With d = width,
/// k = slots, f = feed_forward, V = vocabulary:
///   encoder layer    4 L d^2 + 2 L^2 d + 2 L d f, and the memory read 2 (L + k) d^2 + 2 L k d
///   writer           2 (L + k) d^2 + 2 k (L + 1) d, and k d^2 for each of project_value and
///                    output_projection
///   decoder layer    8 L d^2 + 4 L^2 d + 2 L d f
///   head             L d V                                           (eq. C5)
/// simplified_relative adds 2 L (2 S - 1) d to each self-attention, S being model.segment.
struct MultiplyAdds {
  std::int64_t memory_path = 0;  ///< encoder and writer: all that M_{t+1} needs
  std::int64_t prediction = 0;   ///< decoder and head

  /// Of a whole step, forward.
  std::int64_t total() const { return memory_path + prediction; }
  /// Work of MRBP over that of BPTT in a long window: a step costs its forward pass and twice that
  /// backward, and MRBP runs the memory path once more (eq. C4).
  double replay_ratio() const;
};
/// Of the model that this configuration describes.
MultiplyAdds multiply_adds(const ModelConfig& config);

/// Bytes of the memory of one row, M_t: slots x width.
std::int64_t memory_bytes_per_row(const ModelConfig& config);

}  // namespace mf
