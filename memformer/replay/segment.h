#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace mf {

/// A target that is not scored.
inline constexpr std::int32_t kIgnore = -1;

/// What one step reads: L tokens of each of B rows, and the targets it is scored on.
/// For a language model the targets are the tokens of the *next* segment (eq. S1: step t reads s_t
/// and is scored on s_{t+1}); the decoder reads them shifted right behind a begin token.
struct Segment {
  Tensor tokens;            ///< i32 [B, L]: what the encoder reads
  Tensor padding;           ///< u8 [B, L], 1 = a real token; undefined: all are
  Tensor decoder_inputs;    ///< i32 [B, K]; undefined without targets or without a decoder
  Tensor targets;           ///< i32 [B, K], kIgnore where not scored; undefined: nothing is scored
  Tensor reset;             ///< u8 [B], 1 = this row starts a document; undefined: no row does
  std::int64_t scored = 0;  ///< number of targets that are not kIgnore

  /// B, the number of rows.
  std::int64_t batch() const { return tokens.size(0); }
  /// The same on another device.
  Segment to(Device device) const {
    Segment moved = *this;
    for (Tensor* const x :
         {&moved.tokens, &moved.padding, &moved.decoder_inputs, &moved.targets, &moved.reset})
      if (x->defined()) *x = x->to(device);
    return moved;
  }
};

}  // namespace mf
