#pragma once

#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"

namespace mf {

/// Layers in evaluation mode on plain Tensors: nothing is recorded or dropped out, and neither
/// module paths nor keys are made. One position of one row is so little arithmetic that these would
/// cost as much. Shapes and results are those of the layers' operator().
Tensor infer(const Linear& layer, const Tensor& x);
Tensor infer(const LayerNorm& layer, const Tensor& x);    ///< the same of a LayerNorm
Tensor infer(const FeedForward& layer, const Tensor& x);  ///< the same of a FeedForward

/// Keys and values of the positions that an attention has met, in storage that is allocated once:
/// a further position costs one projection of that position, not of all before it.
struct KeyValueCache {
  Tensor keys,              ///< [B, heads, capacity, D]; what lies behind `length` means nothing
      values;               ///< the same
  std::int64_t length = 0;  ///< positions held
  /// [capacity, D], only for attention with a relative table: row capacity - 1 - d is R_d, so that
  /// the last n rows are R_{i-j} for the newest query i and the keys j = 0..n-1.
  Tensor relative;

  /// Empties the cache, for `attention` over at most `capacity` positions of `batch` rows. Storage
  /// that fits already is kept.
  void reset(const MultiHeadAttention& attention, std::int64_t batch, std::int64_t capacity,
             Device device = cpu);
  /// Projects context [B, n, width] and appends its n positions. Throws Error if they do not fit.
  void append(const MultiHeadAttention& attention, const Tensor& context);
};

/// Attention of one query per row, x [B, width], over everything in the cache; [B, width]. For
/// self-attention the query's own position was appended just before. `mask` (u8) and `bias`
/// broadcast to [B, heads, 1, length] and may be undefined.
Tensor infer(const MultiHeadAttention& attention, const Tensor& x, const KeyValueCache& cache,
             const Tensor& mask, const Tensor& bias);

}  // namespace mf
