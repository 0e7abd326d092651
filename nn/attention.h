#pragma once

#include <initializer_list>
#include <optional>
#include <vector>

#include "autograd/ops/attention.h"
#include "nn/linear.h"
#include "nn/positions.h"

namespace mf {

/// What one attention call may see.
struct AttentionScope {
  Tensor mask;          ///< u8, 1 = attend, broadcasts to [B, H, T, S]; undefined: everything
  Var bias;             ///< added to the logits, broadcasts to [B, H, T, S]; undefined: none
  bool causal = false;  ///< query i sees keys up to i
};

/// [B, T, heads * D] as [B, heads, T, D]: a view.
Var split_heads(const Var& x, std::int64_t heads);
/// The way back: [B, heads, T, D] as [B, T, heads * D]. A view of what `attention` gives, which is
/// stored so; else a copy.
Var merge_heads(const Var& x);

/// x [.., in] through several linear layers at once, one result each: what x's backward needs is
/// kept and read once. All layers have a bias, or none.
std::vector<Var> project(const Pass& pass, const Var& x,
                         std::initializer_list<const Linear*> layers);

/// Multi-head attention with projections (eq. A2):
///   out = concat_h softmax(Q_h K_h^T / sqrt(D)) V_h W_O,  Q = x W_Q, K = c W_K, V = c W_V.
/// x: [B, T, width]; context c: [B, S, width] (x itself for self-attention). Result: [B, T, width].
struct MultiHeadAttention {
  Linear query,  ///< W_Q, [width, width] as the others
      key,       ///< W_K
      value,     ///< W_V
      output;    ///< W_O
  /// The table R [2 * reach - 1, D] of eq. P1; undefined for plain attention.
  std::optional<Embedding> relative;
  std::int64_t heads = 1;            ///< D is width / heads
  double dropout_probability = 0.0;  ///< of the attention weights

  /// Without parameters; to be assigned to.
  MultiHeadAttention() = default;
  /// Four linear layers, initialised as Linear, with biases if `bias`. Throws Error unless
  /// head_count divides width.
  MultiHeadAttention(std::int64_t width, std::int64_t head_count, bool bias, double dropout_p,
                     RngKey rng, DType dtype);
  /// Adds the relative table, for self-attention over at most `reach` positions.
  void use_relative_positions(std::int64_t reach, RngKey rng, DType dtype);

  /// x attends to the context, as far as `seen` allows. Adds the residual, [B, T, width], to the
  /// result if it is defined.
  Var operator()(const Pass& pass, const Var& x, const Var& context,
                 const AttentionScope& seen = {}, const Var& residual = {}) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("query", query);
    fn("key", key);
    fn("value", value);
    fn("output", output);
    fn("relative", relative);
  }
};

}  // namespace mf
