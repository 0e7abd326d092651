#pragma once

#include <optional>

#include "memformer/model/config.h"
#include "nn/linear.h"

namespace mf {

/// Memory writing by slot attention (v2 section 3.3, Fig. 3; spec 1.5), once per step, after the
/// encoder. For slot i over itself and the encoded tokens x, per head:
///   q_i = m_i W_Q, kappa_i = m_i W_K, K_x = x W_K, V_x = x W_V
///   a_i = softmax([q_i . kappa_i ; q_i K_x^T] / (sqrt(D) tau)),   m'_i = a_i [m_i ; V_x]
/// A slot sees itself and the tokens, no other slot; its own value is the raw m_i, so a slot that
/// attends only to itself is kept bit for bit. Switches: projected own value (v1), a key projection
/// of its own for slots, an output projection. memory: [B, slots, width]; tokens: [B, L, width];
/// padding: u8 [B, L] or undefined. Result m': [B, slots, width], before normalisation.
struct MemoryWriter {
  Linear query, key, value;
  std::optional<Linear> slot_key;  ///< if not shared with the tokens
  std::optional<Linear> output;
  std::int64_t heads = 1;
  double temperature = 1.0;
  bool project_value = false;

  MemoryWriter() = default;
  MemoryWriter(const ModelConfig& config, RngKey key);

  Var operator()(const Pass& pass, const Var& memory, const Var& tokens,
                 const Tensor& padding) const;

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
