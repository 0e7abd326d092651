#pragma once

#include "memformer/baselines/relative_stack.h"

namespace mf {

/// Hyperparameters of CompressiveTransformer.
struct CompressiveConfig : RelativeStackConfig {
  using Model = class CompressiveTransformer;          ///< what it describes
  static constexpr const char* kName = "compressive";  ///< model.name
  std::int64_t cache = 64;       ///< n_m: rows that each layer remembers as they are
  std::int64_t compressed = 64;  ///< n_c: rows that each layer remembers compressed; 0: none
  std::int64_t rate = 4;         ///< c: rows that become one; divides segment and cache
  bool mean_pooling = false;     ///< compress by the mean; else by a learned convolution
  double reconstruction = 1.0;   ///< weight of the auxiliary loss; 0: none
  bool task_gradient = false;    ///< let the next segments' loss train compressor and old rows too

  /// Shows every field with its name.
  template <class Field>
  void each_field(Field&& field) {
    RelativeStackConfig::each_field(field);
    field("cache", cache);
    field("compressed", compressed);
    field("rate", rate);
    field("mean_pooling", mean_pooling);
    field("reconstruction", reconstruction);
    field("task_gradient", task_gradient);
  }
  /// Field by field.
  friend bool operator==(const CompressiveConfig&, const CompressiveConfig&) = default;
};
/// Throws Error naming the first impossible value and what it could be.
void validate(const CompressiveConfig& config);
/// Of a segment behind full memories: eq. C6 with S = n_c + n_m + L for each layer, L d^2 for each
/// layer's convolution, and the head L d V. The auxiliary loss, in training only, is not counted.
/// The memory path is all layers but the last, and all compressors.
MultiplyAdds multiply_adds(const CompressiveConfig& config);

/// Compressive Transformer (Rae et al. 2020, arXiv 1911.05507): Transformer-XL whose oldest rows,
/// where they leave the cache, are compressed and remembered longer. For each layer, with old the
/// rows of [m; x] that no longer fit into m:
///   z_j = b + sum_{tau < c} old_{jc+tau} W_tau      (or the mean of the c rows)
///   m' = the last n_m rows of [m; x],   cm' = the last n_c rows of [cm; z]
/// and attention is over [cm; m; x]. Distances count a compressed row as one position.
/// Auxiliary loss of a step in training, summed over layers, with all weights but f_c's constant:
///   reconstruction * mean (att(sg x; sg old) - att(sg x; f_c(sg old)))^2,
/// att attending by content alone, in one pass for all heads.
/// As published, the auxiliary loss alone trains f_c: what it makes enters the memory as a
/// constant. With task_gradient the losses of later segments train it, and the layers that wrote
/// the rows, through the memory. State: "cache.l" [B, n, d] and "compressed.l" [B, n', d] for each
/// layer, then "valid" u8 [B, n] and "compressed_valid" u8 [B, n'] (both carried), which mark the
/// rows of the present document.
class CompressiveTransformer final : public TokenModel {
 public:
  /// Throws Error if `config` is impossible.
  CompressiveTransformer(const CompressiveConfig& config, RngKey key);
  State initial_state(std::int64_t batch) const override;
  std::vector<Parameter> parameters() const override;
  /// f_c of each layer: W [c d, d] and b; empty with mean pooling.
  const std::vector<Linear>& compressors() const { return compressors_; }

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    each_shared(fn);
    stack_.each(fn);
    fn("compressors", compressors_);
  }

 private:
  Reading read(const Pass& pass, const Segment& segment, const LiveState& state,
               bool whole) const override;
  /// z of old rows [B, n, d], n a multiple of the rate.
  Var compress(const Pass& pass, std::size_t layer, const Var& old) const;

  CompressiveConfig config_;
  RelativeStack stack_;
  std::vector<Linear> compressors_;
};

}  // namespace mf
