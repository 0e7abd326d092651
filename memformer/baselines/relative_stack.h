#pragma once

#include <optional>
#include <vector>

#include "memformer/baselines/token_model.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"

/// @file
/// The layers of Transformer-XL (Dai et al. 2019, arXiv 1901.02860), which the Compressive
/// Transformer and the Recurrent Memory Transformer are built on as well.

namespace mf {

/// What the configurations of the models on a relative stack hold.
struct RelativeStackConfig : TokenModelConfig {
  std::int64_t heads = 4;                    ///< H
  std::int64_t head_width = 0;               ///< dh; 0: width / heads, which must be whole
  std::int64_t feed_forward = 512;           ///< hidden features
  Activation activation = Activation::gelu;  ///< of the feed-forward layer
  double attention_dropout = 0.0;            ///< on attention weights
  bool pre_norm = true;        ///< LayerNorm before each sub-layer and at the end; else behind each
  double norm_epsilon = 1e-5;  ///< of every LayerNorm

  /// dh with its default resolved.
  std::int64_t features_per_head() const { return head_width > 0 ? head_width : width / heads; }
  /// Shows every field with its name; configurations that hold more call it first.
  template <class Field>
  void each_field(Field&& field) {
    TokenModelConfig::each_field(field);
    field("heads", heads);
    field("head_width", head_width);
    field("feed_forward", feed_forward);
    field("activation", activation);
    field("attention_dropout", attention_dropout);
    field("pre_norm", pre_norm);
    field("norm_epsilon", norm_epsilon);
  }
  /// Field by field.
  friend bool operator==(const RelativeStackConfig&, const RelativeStackConfig&) = default;
};
/// Throws Error naming the first impossible value and what it could be.
void validate(const RelativeStackConfig& config);

/// Where queries and keys lie and what may be seen: the same for all layers of a step.
struct RelativeScope {
  Var sinusoids;       ///< R [S, width], row delta: of distance delta
  Tensor distance;     ///< i32 [T, S]: that of query i and key j, the row of R
  Tensor mask;         ///< u8, 1 = attend, broadcasts to [B, H, T, S]; undefined: everything
  bool causal = true;  ///< query i sees keys up to i + S - T
  Var content_bias;    ///< u [H, 1, dh]
  Var position_bias;   ///< w [H, 1, dh]
};

/// A layer over the rows x [B, T, d] that attends to c = [m; x], with rows m [B, S - T, d] before
/// x:
///   q = x W_q,  k = c W_k,  v = c W_v,  r_delta = R_delta W_r   (no biases)
///   score_ij = ((q_i + u) . k_j + (q_i + w) . r_{i+S-T-j}) / sqrt(dh)
///   y = x + softmax(score) v W_o,   z = y + FFN(y)
/// With pre_norm c and y pass a LayerNorm first; else x + .. and y + .. pass one behind.
/// Source: arXiv 1901.02860, section 3.3.
struct RelativeLayer {
  Linear query,                      ///< W_q [d, H dh]
      key,                           ///< W_k [d, H dh]
      value,                         ///< W_v [d, H dh]
      position,                      ///< W_r [d, H dh]
      output;                        ///< W_o [H dh, d]
  LayerNorm attention_norm,          ///< of the attention
      feed_forward_norm;             ///< of the feed-forward layer
  FeedForward feed_forward;          ///< with biases
  std::int64_t heads = 1;            ///< H
  bool pre_norm = true;              ///< where the norms stand
  double dropout_probability = 0.0;  ///< of what each sub-layer adds
  double attention_dropout = 0.0;    ///< of attention weights

  /// With the sizes and switches of `config`.
  RelativeLayer(const RelativeStackConfig& config, RngKey key);
  /// x [B, T, d], memory [B, S - T, d], which may have no rows. Result: [B, T, d].
  Var operator()(const Pass& pass, const Var& x, const Var& memory,
                 const RelativeScope& scope) const;
  /// softmax((x W_q)(rows W_k)^T / sqrt(dh)) (rows W_v), without positions, with all weights
  /// constant: x [B, T, d], rows [B, R, d] -> [B, T, H dh]. `mask` as in RelativeScope.
  Var content_attention(const Var& x, const Var& rows, const Tensor& mask) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("query", query);
    fn("key", key);
    fn("value", value);
    fn("position", position);
    fn("output", output);
    fn("attention_norm", attention_norm);
    fn("feed_forward", feed_forward);
    fn("feed_forward_norm", feed_forward_norm);
  }
};

/// The layers, and what they share: u and w, and the last LayerNorm where they have theirs in
/// front.
struct RelativeStack {
  Parameter content_bias,             ///< u [H, dh]
      position_bias;                  ///< w [H, dh]
  std::vector<RelativeLayer> layers;  ///< from the tokens up
  std::optional<LayerNorm> norm;      ///< of the last layer's result; with pre_norm
  Tensor sinusoids;                   ///< R [rows, width]: all sines of a row, then all cosines

  /// With the sizes and switches of `config`, for at most `rows` keys.
  RelativeStack(const RelativeStackConfig& config, std::int64_t rows, RngKey key);
  /// For `queries` rows behind `memory` others. A key behind its query, where the mask allows one,
  /// has distance 0.
  RelativeScope scope(const Pass& pass, std::int64_t queries, std::int64_t memory,
                      const Tensor& mask, bool causal) const;
  /// Result of the last layer, normalised if there is a norm.
  Var finish(const Pass& pass, const Var& x) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("content_bias", content_bias);
    fn("position_bias", position_bias);
    fn("layers", layers);
    fn("norm", norm);
  }
};

/// Multiply-adds of one layer for one row of T queries and S keys; with a = H dh and
/// f = feed_forward:
///   2 T d a + 3 S d a + 3 T S a + 2 T d f      (eq. C6)
/// More rows of a batch share S d a of these: R W_r is the same for all.
std::int64_t layer_multiply_adds(const RelativeStackConfig& config, std::int64_t queries,
                                 std::int64_t keys);

/// The last `count` rows of [memory; x] along axis 1, or all there are, in a block of their own.
Var last_rows(const Var& memory, const Var& x, std::int64_t count);
/// The same of u8 [B, rows] masks.
Tensor last_rows(const Tensor& memory, const Tensor& x, std::int64_t count);
/// `valid` u8 [B, rows] with 0 in the rows of the batch that start a document.
Tensor without_reset(const Tensor& valid, const Tensor& reset);

}  // namespace mf
