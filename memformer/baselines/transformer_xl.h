#pragma once

#include "memformer/baselines/relative_stack.h"

namespace mf {

/// Hyperparameters of TransformerXl.
struct TransformerXlConfig : RelativeStackConfig {
  using Model = class TransformerXl;                      ///< what it describes
  static constexpr const char* kName = "transformer-xl";  ///< model.name
  std::int64_t cache = 64;  ///< K: rows that each layer remembers; 0: none

  /// Shows every field with its name.
  template <class Field>
  void each_field(Field&& field) {
    RelativeStackConfig::each_field(field);
    field("cache", cache);
  }
  /// Field by field.
  friend bool operator==(const TransformerXlConfig&, const TransformerXlConfig&) = default;
};
/// Throws Error naming the first impossible value and what it could be.
void validate(const TransformerXlConfig& config);
/// Of a segment behind a full cache: eq. C6 with S = K + L for each layer, and the head L d V. The
/// memory path is all layers but the last, as the cache holds the layers' inputs.
MultiplyAdds multiply_adds(const TransformerXlConfig& config);

/// Transformer-XL (Dai et al. 2019, arXiv 1901.02860): each layer attends also to its own inputs of
/// the last K positions, which the segments before left behind:
///   m^l_{t+1} = the last K rows of [m^l_t; x^l_t]
/// State: "cache.l" [B, n, d] for each layer and "valid" u8 [B, n] (carried), which marks the rows
/// of the present document; n grows from 0 to K. The original detaches the cache at each boundary
/// (Boundary{1}); with the gradient kept and K >= the history the model is one causal Transformer
/// over the whole text, in values and gradients.
class TransformerXl final : public TokenModel {
 public:
  /// Throws Error if `config` is impossible.
  TransformerXl(const TransformerXlConfig& config, RngKey key);
  State initial_state(std::int64_t batch) const override;
  std::vector<Parameter> parameters() const override;
  /// The layers.
  const RelativeStack& stack() const { return stack_; }

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    each_shared(fn);
    stack_.each(fn);
  }

 private:
  Reading read(const Pass& pass, const Segment& segment, const LiveState& state,
               bool whole) const override;

  RelativeStack stack_;
  std::int64_t cache_;
};

}  // namespace mf
