#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

/// Everything about attention that is not query, key or value; all of it may be left out.
struct AttentionInputs {
  Tensor mask{};  ///< u8, 1 = attend; broadcasts to [B, H, T, S]
  Var bias{};     ///< added to the scaled product; broadcasts to [B, H, T, S]; differentiable
  AttentionOptions options{};  ///< causal rule, scale, temperature, dropout
  bool want_map = false;       ///< also return the weights, for inspection: T x S numbers
  /// A key and a value of its own for each query, which it sees besides all others whatever the
  /// mask. Both or neither; differentiable.
  Var own_key{},    ///< [B, H, T, D]
      own_value{};  ///< [B, H, T, E], beside own_key
};

/// What `attention` gives.
struct AttentionOutput {
  Var out{};         ///< [B, H, T, E], stored as [B, T, H, E] so that merging heads is a view
  Tensor log_sum{};  ///< [B, H, T]; not differentiable
  /// [B, H, T, S] if asked for, else undefined; [B, H, T, S + 1], the own weight last, where there
  /// are own keys; not differentiable.
  Tensor map{};
};

namespace ops {

/// Attention (eq. A1) with its options:
/// out_i = sum_j d_ij w_ij v_j, w_i = softmax_j(logit_i), d_ij the dropout factor, 0 or 1 / (1 -
/// p); logit_ij = (scale * q_i . k_j + bias_ij) / temperature, -inf where masked or not causal.
/// With own keys and values the index j has one more value, "own": k_own = own_key_i, v_own =
/// own_value_i, without bias and never masked.
/// query: [B, H, T, D], key: [B, H, S, D], value: [B, H, S, E], own_key: [B, H, T, D], own_value:
/// [B, H, T, E], one dtype; recorded in the order query, key, value, bias if given, own_key and
/// own_value if given. A row that sees no key gives zeros.
/// Saves: query, key, value, out, log_sum, and bias, mask, own_key and own_value if given; never T
/// x S.
/// Gradients, with ds_ij = w_ij (d_ij gout_i . v_j - gout_i . out_i) / temperature:
/// gv_j = sum_i d_ij w_ij gout_i, gq_i = scale * sum_j ds_ij k_j, gk_j = scale * sum_i ds_ij q_i,
/// gbias = ds; gown_value_i = d_i,own w_i,own gout_i, gown_key_i = scale * ds_i,own q_i.
/// Throws Error if shapes do not fit, one of own_key and own_value is missing, the temperature is
/// not positive or dropout is not in [0, 1).
struct Attention {
  static constexpr const char* kName = "attention";
  AttentionOptions options;
  bool want_map, has_bias, has_own;
  AttentionOutput* output;  // forward leaves log_sum and map here, and forgets it
  Saved mask;
  Saved query{}, key{}, value{}, bias{}, own_key{}, own_value{}, out{}, log_sum{};

  Tensor forward(Wants, std::span<const Tensor> inputs) {
    query = inputs[0];
    key = inputs[1];
    value = inputs[2];
    if (has_bias) bias = inputs[kBias];
    if (has_own) {
      own_key = inputs[static_cast<std::size_t>(own_input())];
      own_value = inputs[static_cast<std::size_t>(own_input()) + 1];
    }
    AttentionResult result =
        mf::attention(query, key, value, mask, bias, options, want_map, {own_key, own_value});
    out = result.out;
    log_sum = result.log_sum;
    output->log_sum = std::move(result.log_sum);
    output->map = std::move(result.map);
    output = nullptr;
    return result.out;
  }
  void backward(const Tensor& gout, Grads& g) const {
    const AttentionWants wants{g.wants(0),
                               g.wants(1),
                               g.wants(2),
                               has_bias && g.wants(kBias),
                               has_own && g.wants(own_input()),
                               has_own && g.wants(own_input() + 1)};
    AttentionGrads grads = attention_backward(query, key, value, mask, bias, options, out, log_sum,
                                              gout, wants, {own_key, own_value});
    g.add(0, std::move(grads.q));
    g.add(1, std::move(grads.k));
    g.add(2, std::move(grads.v));
    if (has_bias) g.add(kBias, std::move(grads.bias));
    if (has_own) {
      g.add(own_input(), std::move(grads.own_key));
      g.add(own_input() + 1, std::move(grads.own_value));
    }
  }
  auto saved() { return std::tie(query, key, value, mask, bias, own_key, own_value, out, log_sum); }

 private:
  static constexpr int kBias = 3;
  int own_input() const { return has_bias ? kBias + 1 : kBias; }
};

}  // namespace ops

/// out_i = sum_j softmax_j(scale * q_i . k_j + bias_ij) v_j, as many heads at once: query
/// [B, H, T, D], key [B, H, S, D], value [B, H, S, E]. Nothing of T x S elements is kept for
/// backward. Equations, gradients and errors: ops::Attention.
inline AttentionOutput attention(const Var& query, const Var& key, const Var& value,
                                 const AttentionInputs& inputs = {}) {
  const bool has_bias = inputs.bias.value.defined();
  const bool has_own = inputs.own_key.value.defined() || inputs.own_value.value.defined();
  std::vector<Var> operands{query, key, value};
  if (has_bias) operands.push_back(inputs.bias);
  if (has_own) operands.insert(operands.end(), {inputs.own_key, inputs.own_value});
  AttentionOutput output;
  output.out = record(
      ops::Attention{inputs.options, inputs.want_map, has_bias, has_own, &output, inputs.mask},
      operands);
  return output;
}

}  // namespace mf
