#pragma once

#include "memformer/baselines/relative_stack.h"

namespace mf {

/// Hyperparameters of RecurrentMemoryTransformer.
struct RmtConfig : RelativeStackConfig {
  using Model = class RecurrentMemoryTransformer;  ///< what it describes
  static constexpr const char* kName = "rmt";      ///< model.name
  std::int64_t memory = 8;                         ///< m: memory tokens; 0: none
  bool write =
      true;  ///< false: the tokens are only read, and nothing passes from segment to segment

  /// Shows every field with its name.
  template <class Field>
  void each_field(Field&& field) {
    RelativeStackConfig::each_field(field);
    field("memory", memory);
    field("write", write);
  }
  /// Field by field.
  friend bool operator==(const RmtConfig&, const RmtConfig&) = default;
};
/// Throws Error naming the first impossible value and what it could be.
void validate(const RmtConfig& config);
/// For each layer eq. C6 with T = S = 2 m + L (m + L where nothing is written), and the head L d V.
/// All layers are the memory path, if anything is written.
MultiplyAdds multiply_adds(const RmtConfig& config);

/// Recurrent Memory Transformer (Bulatov et al. 2022, arXiv 2207.06881): an ordinary causal
/// Transformer that reads m memory vectors before the segment and leaves m behind it:
///   z = Transformer([M_t; E x_t; M_t]),   y_t = the middle rows of z,   M_{t+1} = its last m rows
/// Read rows see each other, tokens see read rows and the tokens before them, write rows see
/// everything. A key behind its query has distance 0. M_0 is learned; memory rows are not scaled as
/// the token embeddings are.
/// State: "memory" [B, m, d]; none where m is 0 or nothing is written: then M_t = M_0.
class RecurrentMemoryTransformer final : public TokenModel {
 public:
  /// Throws Error if `config` is impossible.
  RecurrentMemoryTransformer(const RmtConfig& config, RngKey key);
  State initial_state(std::int64_t batch) const override;
  std::vector<Parameter> parameters() const override;
  /// The layers.
  const RelativeStack& stack() const { return stack_; }

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    each_shared(fn);
    stack_.each(fn);
    fn("initial_memory", initial_memory_);
  }

 private:
  Reading read(const Pass& pass, const Segment& segment, const LiveState& state,
               bool whole) const override;

  RelativeStack stack_;
  Parameter initial_memory_;  // [m, d]; undefined where m is 0
  std::int64_t memory_;
  bool write_;
};

}  // namespace mf
