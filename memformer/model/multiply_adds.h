#pragma once

#include "memformer/model/config.h"

namespace mf {

/// Multiply-adds of one row and one full segment, going forward: products with weights, attention
/// scores and weighted values. Embeddings, softmax, norms, activations and sums are not counted,
/// and causal attention counts as the whole rectangle it is cut from.
struct MultiplyAdds {
  std::int64_t memory_path = 0;  ///< all that M_{t+1} needs; Memformer: encoder and writer
  std::int64_t prediction = 0;   ///< the rest; Memformer: decoder and head

  /// Of a whole step, forward.
  std::int64_t total() const { return memory_path + prediction; }
  /// Work of MRBP over that of BPTT in a long window: a step costs its forward pass and twice that
  /// backward, and MRBP runs the memory path once more (eq. C4).
  double replay_ratio() const;
};

/// Of a Memformer and a segment of L tokens. With d = width, k = slots, f = feed_forward,
/// V = vocabulary:
///   encoder layer    4 L d^2 + 2 L^2 d + 2 L d f, and the memory read 2 (L + k) d^2 + 2 L k d
///   writer           2 (L + k) d^2 + 2 k (L + 1) d, and k d^2 for each of project_value and
///                    output_projection
///   decoder layer    8 L d^2 + 4 L^2 d + 2 L d f
///   head             L d V                                           (eq. C5)
/// simplified_relative adds 2 L (2 S - 1) d to each self-attention, S being model.segment.
MultiplyAdds multiply_adds(const ModelConfig& config);

}  // namespace mf
