#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "memformer/model/reader.h"
#include "nn/embedding.h"
#include "nn/feed_forward.h"

namespace mf {

/// Pre-norm encoder layer (eq. E1 to E3):
///   a = x + SelfAttention(LN(x)),  b = a + MemoryRead(LN(a), M),  y = b + FFN(LN(b)).
struct EncoderLayer {
  LayerNorm self_norm;                 ///< before self-attention
  MultiHeadAttention self_attention;   ///< of tokens to tokens, in both directions
  std::optional<MemoryReader> reader;  ///< absent without memory
  LayerNorm feed_forward_norm;         ///< before the feed-forward layer
  FeedForward feed_forward;            ///< of each token
  double dropout_probability = 0.0;    ///< of what each of the three adds

  /// With the sizes and switches of `config`.
  EncoderLayer(const ModelConfig& config, RngKey key);
  /// x: [B, L, width]; memory: [B, slots, width] (undefined without memory).
  Var operator()(const Pass& pass, const Var& x, const Var& memory,
                 const AttentionScope& seen) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("self_norm", self_norm);
    fn("self_attention", self_attention);
    if (reader) reader->each(fn);
    fn("feed_forward_norm", feed_forward_norm);
    fn("feed_forward", feed_forward);
  }
};

/// Token embedding plus positions, shared by both stacks.
struct InputEmbedding {
  Embedding tokens;                           ///< [vocabulary, width]
  std::optional<Embedding> positions;         ///< learned, [segment, width]
  std::optional<RelativeBias> relative_bias;  ///< T5's
  bool sinusoidal = false;                    ///< add sinusoidal_positions
  double embedding_scale = 1.0;               ///< of the token embeddings
  double dropout_probability = 0.0;           ///< of the sum
  std::int64_t longest = 0;                   ///< model.segment

  /// Without tables; to be assigned to.
  InputEmbedding() = default;
  /// `two_sided` for the encoder, whose tokens see what is behind them.
  InputEmbedding(const ModelConfig& config, bool two_sided, RngKey key);
  /// ids: i32 [B, L] -> [B, L, width]. Throws Error if L exceeds model.segment.
  Var operator()(const Pass& pass, const Tensor& ids) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("tokens", tokens);
    fn("positions", positions);
    fn("relative_bias", relative_bias);
  }
};

/// A layer of a stack: (pass, x, context, what self-attention sees) -> x.
using LayerFunction =
    std::function<Var(const Pass&, const Var&, const Var&, const AttentionScope&)>;
/// Runs a layer. `replayed`: only its inputs are kept, and it runs again in the sweep.
Var run_layer(const Pass& pass, bool replayed, LayerFunction layer, const Var& x,
              const Var& context, const AttentionScope& seen);

/// Reads segment and memory, in both directions unless it is causal. Result E_t: [B, L, width].
struct Encoder {
  InputEmbedding embedding;          ///< of the tokens
  std::vector<EncoderLayer> layers;  ///< from the tokens up
  std::optional<LayerNorm> norm;     ///< after the last layer, if `final_norm`
  bool layer_replay = false;         ///< ModelConfig::layer_replay
  bool causal = false;               ///< tokens see no tokens behind them

  /// Without layers; to be assigned to.
  Encoder() = default;
  /// With the sizes and switches of `config`.
  Encoder(const ModelConfig& config, RngKey key, bool is_causal = false);
  /// tokens: i32 [B, L]; padding: u8 [B, L], 1 = a real token, or undefined; memory: [B, slots,
  /// width], undefined without memory. Throws Error if L exceeds model.segment.
  Var operator()(const Pass& pass, const Tensor& tokens, const Tensor& padding,
                 const Var& memory) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    embedding.each(fn);
    fn("layers", layers);
    fn("norm", norm);
  }
};

/// Padding as an attention mask: u8 [B, L] -> [B, 1, 1, L]; undefined stays undefined.
Tensor key_mask(const Tensor& padding);

}  // namespace mf
