#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

/// Everything about attention that is not query, key or value; all of it may be left out.
struct AttentionInputs {
  Tensor mask{};  ///< u8, 1 = attend; broadcasts to [B, H, T, S]
  Var bias{};     ///< added to the scaled product; broadcasts to [B, H, T, S]; differentiable
  AttentionOptions options{};
  bool want_map = false;  ///< also return the weights, for inspection: T x S numbers
};

struct AttentionOutput {
  Var out{};         ///< [B, H, T, E], stored as [B, T, H, E] so that merging heads is a view
  Tensor log_sum{};  ///< [B, H, T]; not differentiable
  Tensor map{};      ///< [B, H, T, S] if asked for, else undefined; not differentiable
};

namespace ops {

/// out_i = sum_j d_ij w_ij v_j, w_i = softmax_j(logit_i), d_ij the dropout factor, 0 or 1 / (1 -
/// p); logit_ij = (scale * q_i . k_j + bias_ij) / temperature, -inf where masked or not causal.
/// query: [B, H, T, D], key: [B, H, S, D], value: [B, H, S, E], one dtype. A row with every key
/// masked gives zeros.
/// Saves: query, key, value, out, log_sum, and bias and mask if given; never T x S.
/// Gradients, with ds_ij = w_ij (d_ij gout_i . v_j - gout_i . out_i) / temperature:
/// gv_j = sum_i d_ij w_ij gout_i, gq_i = scale * sum_j ds_ij k_j, gk_j = scale * sum_i ds_ij q_i,
/// gbias = ds.
/// Throws Error if shapes do not fit, the temperature is not positive or dropout is not in [0, 1).
struct Attention {
  static constexpr const char* kName = "attention";
  AttentionOptions options;
  bool want_map;
  AttentionOutput* output;  // forward leaves log_sum and map here, and forgets it
  Saved mask;
  Saved query{}, key{}, value{}, bias{}, out{}, log_sum{};

  Tensor forward(Wants wants, const Tensor& q, const Tensor& k, const Tensor& v) {
    return forward(wants, q, k, v, Tensor{});
  }
  Tensor forward(Wants, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& b) {
    AttentionResult result = mf::attention(q, k, v, mask, b, options, want_map);
    query = q;
    key = k;
    value = v;
    bias = b;
    out = result.out;
    log_sum = result.log_sum;
    output->log_sum = std::move(result.log_sum);
    output->map = std::move(result.map);
    output = nullptr;
    return result.out;
  }
  void backward(const Tensor& gout, Grads& g) const {
    const bool want_bias = bias.defined() && g.wants(3);
    AttentionGrads grads =
        attention_backward(query, key, value, mask, bias, options, out, log_sum, gout,
                           {g.wants(0), g.wants(1), g.wants(2), want_bias});
    g.add(0, std::move(grads.q));
    g.add(1, std::move(grads.k));
    g.add(2, std::move(grads.v));
    if (want_bias) g.add(3, std::move(grads.bias));
  }
  auto saved() { return std::tie(query, key, value, mask, bias, out, log_sum); }
};

}  // namespace ops

inline AttentionOutput attention(const Var& query, const Var& key, const Var& value,
                                 const AttentionInputs& inputs = {}) {
  AttentionOutput output;
  ops::Attention op{inputs.options, inputs.want_map, &output, inputs.mask};
  output.out = inputs.bias.value.defined() ? record(std::move(op), query, key, value, inputs.bias)
                                           : record(std::move(op), query, key, value);
  return output;
}

}  // namespace mf
