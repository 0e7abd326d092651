#pragma once

#include "memformer/model/multiply_adds.h"
#include "memformer/replay/recurrence.h"
#include "nn/embedding.h"

namespace mf {

/// What the configurations of all token models hold.
struct TokenModelConfig {
  std::int64_t vocabulary = 257;     ///< V: token ids are 0..V-1; 257 for bytes
  std::int64_t width = 128;          ///< d: features of a token
  std::int64_t layers = 6;           ///< at least 1
  std::int64_t segment = 64;         ///< longest segment, in tokens
  double dropout = 0.0;              ///< on embeddings and between layers
  double embedding_scale = 0.0;      ///< token embeddings are multiplied by it; 0: sqrt(width)
  double embedding_deviation = 0.0;  ///< of the initial token table; 0: 1/sqrt(width)
  DType dtype = DType::f32;          ///< of parameters, activations and state; or f64

  /// embedding_scale with its default resolved.
  double token_scale() const;
  /// embedding_deviation with its default resolved.
  double token_deviation() const;
  /// Shows every field with its name; configurations that hold more call it first.
  template <class Field>
  void each_field(Field&& field) {
    field("vocabulary", vocabulary);
    field("width", width);
    field("layers", layers);
    field("segment", segment);
    field("dropout", dropout);
    field("embedding_scale", embedding_scale);
    field("embedding_deviation", embedding_deviation);
    field("dtype", dtype);
  }
  /// Field by field.
  friend bool operator==(const TokenModelConfig&, const TokenModelConfig&) = default;
};
/// Throws Error naming the first impossible value and what it could be.
void validate(const TokenModelConfig& config);
/// Of the logits of a segment of L tokens: L d V.
std::int64_t head_multiply_adds(const TokenModelConfig& config);

/// A model that reads a segment token by token and is scored at position i on token i + 1
/// (Prediction::next_token): the baselines. Logits are x E^T + b, with the token table E and an
/// output bias b of their own.
class TokenModel : public Recurrence {
 public:
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const final;
  /// Outputs are the logits [B, L, vocabulary] and the loss is cross-entropy in nats, both
  /// undefined where the segment has no targets.
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const final;

 protected:
  /// What came of reading a segment.
  struct Reading {
    Var hidden;      ///< [B, L, width], what the logits are made of; only if asked for
    Var auxiliary;   ///< 0-d or undefined; only if the hidden values were asked for
    LiveState next;  ///< M_{t+1}, with the boundary rules of the state that came in
  };
  /// With the token table and the output bias.
  TokenModel(const TokenModelConfig& config, RngKey key);
  /// Reads a segment. `whole`: hidden values too, else the memory path alone; the next state has
  /// the same bits.
  virtual Reading read(const Pass& pass, const Segment& segment, const LiveState& state,
                       bool whole) const = 0;

  /// Embeddings of the segment's tokens, scaled and dropped out: [B, L, width]. Throws Error if it
  /// is longer than the model takes, or padded.
  Var embed(const Pass& pass, const Segment& segment) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each_shared(F&& fn) const {
    fn("tokens", tokens_);
    fn("output_bias", output_bias_);
  }

  Embedding tokens_;       ///< E, [vocabulary, width]
  Parameter output_bias_;  ///< b, [vocabulary]

 private:
  double embedding_scale_;
  double dropout_;
  std::int64_t longest_;
};

}  // namespace mf
