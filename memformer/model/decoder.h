#pragma once

#include "memformer/model/encoder.h"

namespace mf {

/// Pre-norm decoder layer (v2 Fig. 1; spec 1.4):
///   a = x + CausalSelfAttention(LN(x)),  b = a + CrossAttention(LN(a), E_t),  y = b + FFN(LN(b)).
struct DecoderLayer {
  LayerNorm self_norm;
  MultiHeadAttention self_attention;
  LayerNorm cross_norm;
  MultiHeadAttention cross_attention;
  LayerNorm feed_forward_norm;
  FeedForward feed_forward;
  double dropout_probability = 0.0;

  DecoderLayer(const ModelConfig& config, RngKey key);
  Var operator()(const Pass& pass, const Var& x, const Var& encoded, const AttentionScope& seen,
                 const AttentionScope& cross) const;

  template <class F>
  void each(F&& fn) const {
    fn("self_norm", self_norm);
    fn("self_attention", self_attention);
    fn("cross_norm", cross_norm);
    fn("cross_attention", cross_attention);
    fn("feed_forward_norm", feed_forward_norm);
    fn("feed_forward", feed_forward);
  }
};

/// Predicts the next segment. It sees the memory only through the encoder output E_t.
/// inputs: i32 [B, K]; encoded: [B, L, width]; padding: u8 [B, L] of the encoder's tokens or
/// undefined. Result: [B, K, width].
struct Decoder {
  InputEmbedding embedding;
  std::vector<DecoderLayer> layers;
  std::optional<LayerNorm> norm;

  Decoder() = default;
  Decoder(const ModelConfig& config, RngKey key);
  Var operator()(const Pass& pass, const Tensor& inputs, const Var& encoded,
                 const Tensor& padding) const;

  template <class F>
  void each(F&& fn) const {
    embedding.each(fn);
    fn("layers", layers);
    fn("norm", norm);
  }
};

}  // namespace mf
