#pragma once

#include <optional>

#include "memformer/model/config.h"
#include "nn/attention.h"
#include "nn/layer_norm.h"

namespace mf {

/// Memory reading (eq. R1 to R3), in every encoder layer:
///   b = a + MultiHead(Q = LN(a) W_Q, K = LN'(M) W_K, V = LN'(M) W_V)
/// Every token sees every slot; no mask, no positions. LN' is the tokens' LN, one of its own or
/// none. a: [B, L, width]; M: [B, slots, width]. Result: the sum's second term, [B, L, width].
struct MemoryReader {
  LayerNorm norm;                         ///< LN
  std::optional<LayerNorm> slot_norm;     ///< LN', if it is one of its own
  MultiHeadAttention attention;           ///< of tokens to slots
  ReadNorm read_norm = ReadNorm::shared;  ///< which one LN' is

  /// Without parameters; to be assigned to.
  MemoryReader() = default;
  /// With the sizes and switches of `config`.
  MemoryReader(const ModelConfig& config, RngKey key);

  /// Adds the residual to the result if it is defined.
  Var operator()(const Pass& pass, const Var& tokens, const Var& memory,
                 const Var& residual = {}) const;

  /// Members of the encoder layer that holds the reader.
  template <class F>
  void each(F&& fn) const {
    fn("memory_norm", norm);
    fn("slot_norm", slot_norm);
    fn("memory_attention", attention);
  }
};

}  // namespace mf
