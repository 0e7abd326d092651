#pragma once

#include <optional>

#include "memformer/model/config.h"
#include "nn/linear.h"

namespace mf {

/// Memory writing by slot attention (eq. W1 to W5; v1: eq. W6), once per step, after the
/// encoder. For slot i over itself and the encoded tokens x, per head:
///   q_i = m_i W_Q, kappa_i = m_i W_K, K_x = x W_K, V_x = x W_V
///   a_i = softmax([q_i . kappa_i ; q_i K_x^T] / (sqrt(D) tau)),   m'_i = a_i [m_i ; V_x]
/// A slot sees itself and the tokens, no other slot; its own value is the raw m_i, so a slot that
/// attends only to itself is kept bit for bit. Switches: projected own value (v1), a key projection
/// of its own for slots, an output projection. memory: [B, slots, width]; tokens: [B, L, width];
/// padding: u8 [B, L] or undefined. Result m': [B, slots, width], before normalisation.
struct MemoryWriter {
  Linear query,                    ///< W_Q, of the slots; no bias, as in the others
      key,                         ///< W_K
      value;                       ///< W_V
  std::optional<Linear> slot_key;  ///< if not shared with the tokens
  std::optional<Linear> output;    ///< ModelConfig::writer_output_projection
  std::int64_t heads = 1;          ///< D is width / heads
  double temperature = 1.0;        ///< tau
  bool project_value = false;      ///< v1: a slot's own value is m_i W_V

  /// Without parameters; to be assigned to.
  MemoryWriter() = default;
  /// With the sizes and switches of `config`.
  MemoryWriter(const ModelConfig& config, RngKey key);

  /// m' from M_t and E_t.
  Var operator()(const Pass& pass, const Var& memory, const Var& tokens,
                 const Tensor& padding) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("query", query);
    fn("key", key);
    fn("slot_key", slot_key);
    fn("value", value);
    fn("output", output);
  }
};

}  // namespace mf
