#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace mf {

/// A target that is not scored.
inline constexpr std::int32_t kIgnore = -1;

/// Which tokens the steps of a text are scored on, and so which models can read it.
enum class Prediction {
  next_segment,  ///< step t reads s_t at once and is scored on s_{t+1} (eq. S1): encoder-decoder
  next_token,    ///< step t reads s_t causally, each token scored on the next: decoder-only
};

/// How many places behind a token the target at its place lies: L under next_segment, else 1.
inline std::int64_t target_offset(Prediction prediction, std::int64_t segment_length) {
  return prediction == Prediction::next_segment ? segment_length : 1;
}

/// What one step reads: L tokens of each of B rows, and the targets it is scored on. For a language
/// model, by Prediction:
///   next_segment  the targets are the tokens of the *next* segment, and the decoder reads them
///                 shifted right behind a begin token; K is L, or shorter for a task's answer
///   next_token    target i is the token behind token i, the last one the first token of the next
///                 segment; K = L, there are no decoder inputs and no padding, so what fills a
///                 short segment up stands at its end and has no target
struct Segment {
  Tensor tokens;            ///< i32 [B, L]: what the encoder, or the causal decoder, reads
  Tensor padding;           ///< u8 [B, L], 1 = a real token; undefined: all are
  Tensor decoder_inputs;    ///< i32 [B, K]; undefined without targets or without a decoder to feed
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
