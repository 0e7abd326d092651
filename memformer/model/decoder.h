#pragma once

#include "memformer/model/encoder.h"
#include "nn/inference.h"

namespace mf {

/// Pre-norm decoder layer (eq. D1 to D3):
///   a = x + CausalSelfAttention(LN(x)),  b = a + CrossAttention(LN(a), E_t),  y = b + FFN(LN(b)).
struct DecoderLayer {
  LayerNorm self_norm;                 ///< before self-attention
  MultiHeadAttention self_attention;   ///< of tokens to those before them
  LayerNorm cross_norm;                ///< before cross-attention
  MultiHeadAttention cross_attention;  ///< of tokens to the encoded segment
  LayerNorm feed_forward_norm;         ///< before the feed-forward layer
  FeedForward feed_forward;            ///< of each token
  double dropout_probability = 0.0;    ///< of what each of the three adds

  /// With the sizes and switches of `config`.
  DecoderLayer(const ModelConfig& config, RngKey key);
  /// x: [B, K, width]; encoded: [B, L, width]; `seen` by self-attention, `cross` by
  /// cross-attention.
  Var operator()(const Pass& pass, const Var& x, const Var& encoded, const AttentionScope& seen,
                 const AttentionScope& cross) const;

  /// Names the members for ParameterCollector.
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

/// What a decoder keeps while it predicts a segment one position at a time: the self-attention keys
/// and values of the positions so far, and the cross-attention's of the encoded segment. Filled by
/// `Decoder::start` and `Decoder::next`; one cache serves segment after segment in the same
/// storage.
struct DecoderCache {
  /// Of one DecoderLayer.
  struct Layer {
    KeyValueCache self,  ///< of the tokens read so far; capacity: model.segment
        cross;           ///< of the encoded segment; capacity: model.segment
  };
  std::vector<Layer> layers;  ///< one for each; empty before `Decoder::start`
  Tensor padding;             ///< u8 [B, 1, 1, L], which encoded tokens may be seen; undefined: all
  Tensor sinusoidal;          ///< [segment, width], slow to make and so kept; or undefined
  /// [heads, 1, segment] relative bias, distance segment - 1 first: the last n columns are those of
  /// the newest of n positions. Undefined without relative_bias.
  Tensor bias;

  /// Of the token to be read next, from 0.
  std::int64_t position() const { return layers.empty() ? 0 : layers.front().self.length; }
};

/// Predicts the next segment. It sees the memory only through the encoder output E_t.
/// inputs: i32 [B, K]; encoded: [B, L, width]; padding: u8 [B, L] of the encoder's tokens or
/// undefined. Result: [B, K, width].
struct Decoder {
  InputEmbedding embedding;          ///< of the inputs
  std::vector<DecoderLayer> layers;  ///< from the inputs up
  std::optional<LayerNorm> norm;     ///< after the last layer, if `final_norm`
  bool layer_replay = false;         ///< ModelConfig::layer_replay

  /// Without layers; to be assigned to.
  Decoder() = default;
  /// With the sizes and switches of `config`.
  Decoder(const ModelConfig& config, RngKey key);
  /// Position i sees the inputs 0..i. Throws Error if K exceeds model.segment.
  Var operator()(const Pass& pass, const Tensor& inputs, const Var& encoded,
                 const Tensor& padding) const;

  /// Makes `cache` ready for the first position behind encoded [B, L, width].
  void start(DecoderCache& cache, const Tensor& encoded, const Tensor& padding) const;
  /// Reads the token of the cache's position, ids i32 [B], in evaluation mode and without a tape:
  /// that position of operator()'s result but for rounding, [B, width], at the cost of one
  /// position. Throws Error before `start` and behind model.segment positions.
  Tensor next(DecoderCache& cache, const Tensor& ids) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    embedding.each(fn);
    fn("layers", layers);
    fn("norm", norm);
  }
};

}  // namespace mf
