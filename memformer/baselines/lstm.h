#pragma once

#include "memformer/baselines/token_model.h"
#include "nn/linear.h"

namespace mf {

/// Hyperparameters of Lstm.
struct LstmConfig : TokenModelConfig {
  using Model = class Lstm;                     ///< what it describes
  static constexpr const char* kName = "lstm";  ///< model.name
  /// Tokens that are one entry of the tape, run again in the sweep: back-propagation keeps the
  /// inside of so many tokens, and the state between, instead of the inside of a whole segment. 0:
  /// no replay within a segment.
  std::int64_t replay_tokens = 0;

  /// Shows every field with its name.
  template <class Field>
  void each_field(Field&& field) {
    TokenModelConfig::each_field(field);
    field("replay_tokens", replay_tokens);
  }
  /// Field by field.
  friend bool operator==(const LstmConfig&, const LstmConfig&) = default;
};
/// Throws Error naming the first impossible value and what it could be.
void validate(const LstmConfig& config);
/// 8 L d^2 for each layer, and the head L d V. All layers are the memory path.
MultiplyAdds multiply_adds(const LstmConfig& config);

/// Stacked LSTM (Hochreiter and Schmidhuber 1997) with forget gates; for each layer and token
///   [i, f, g, o] = x W + h U + b,   c' = sigmoid(f) c + sigmoid(i) tanh(g),   h' = sigmoid(o)
///   tanh(c')
/// b begins at 1 for the forget gate, else at 0. The layer above reads h', and so does the head.
/// State: "hidden.l" and "cell.l" [B, d] for each layer, 0 where a document starts.
class Lstm final : public TokenModel {
 public:
  /// Throws Error if `config` is impossible.
  Lstm(const LstmConfig& config, RngKey key);
  State initial_state(std::int64_t batch) const override;
  std::vector<Parameter> parameters() const override;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    each_shared(fn);
    fn("layers", layers_);
  }

 private:
  struct Layer {
    Linear input;   // W [d, 4d] and b
    Linear hidden;  // U [d, 4d]

    Layer(const LstmConfig& config, RngKey key);
    /// What a run over tokens leaves: the rows h' [B, n, d] and the last h' and c' [B, d].
    struct Run {
      Var rows;    ///< [B, n, d]
      Var hidden;  ///< [B, d]
      Var cell;    ///< [B, d]
    };
    /// x [B, n, d].
    Run run(const Pass& pass, const Var& x, const Var& hidden_before, const Var& cell_before) const;

    template <class F>
    void each(F&& fn) const {
      fn("input", input);
      fn("hidden", hidden);
    }
  };

  Reading read(const Pass& pass, const Segment& segment, const LiveState& state,
               bool whole) const override;

  std::vector<Layer> layers_;
  std::int64_t width_;
  std::int64_t replay_tokens_;
  double dropout_probability_;
};

}  // namespace mf
