#pragma once

#include "memformer/baselines/token_model.h"
#include "memformer/model/encoder.h"

namespace mf {

/// Hyperparameters of Transformer.
struct TransformerConfig : TokenModelConfig {
  using Model = class Transformer;                     ///< what it describes
  static constexpr const char* kName = "transformer";  ///< model.name
  std::int64_t heads = 4;                              ///< must divide the width
  std::int64_t feed_forward = 512;                     ///< hidden features
  Activation activation = Activation::gelu;            ///< of the feed-forward layer
  double attention_dropout = 0.0;                      ///< on attention weights
  Positions positions = Positions::learned;            ///< how the model knows where a token stands
  double norm_epsilon = 1e-5;                          ///< of every LayerNorm

  /// Shows every field with its name.
  template <class Field>
  void each_field(Field&& field) {
    TokenModelConfig::each_field(field);
    field("heads", heads);
    field("feed_forward", feed_forward);
    field("activation", activation);
    field("attention_dropout", attention_dropout);
    field("positions", positions);
    field("norm_epsilon", norm_epsilon);
  }
  /// The causal encoder without memory that it is.
  ModelConfig encoder() const;
  /// Field by field.
  friend bool operator==(const TransformerConfig&, const TransformerConfig&) = default;
};
/// Throws Error naming the first impossible value and what it could be.
void validate(const TransformerConfig& config);
/// The encoder's of eq. C5, without slots, and the head L d V. There is no memory path.
MultiplyAdds multiply_adds(const TransformerConfig& config);

/// A Transformer decoder without memory (Vaswani et al. 2017), pre-norm: each segment for itself.
/// A segment as long as the text gives full attention over all of it. The state is empty.
class Transformer final : public TokenModel {
 public:
  /// Throws Error if `config` is impossible.
  Transformer(const TransformerConfig& config, RngKey key);
  State initial_state(std::int64_t batch) const override;
  std::vector<Parameter> parameters() const override;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    each_shared(fn);
    encoder_.each(fn);
  }

 private:
  Reading read(const Pass& pass, const Segment& segment, const LiveState& state,
               bool whole) const override;

  Encoder encoder_;
};

}  // namespace mf
