#include "nn/attention.h"

#include "autograd/ops.h"

namespace mf {

Var split_heads(const Var& x, std::int64_t heads) {
  return permute(reshape(x, {x.size(0), x.size(1), heads, x.size(2) / heads}), {0, 2, 1, 3});
}

std::vector<Var> project(const Pass& pass, const Var& x,
                         std::initializer_list<const Linear*> layers) {
  std::vector<Var> weights, biases;
  for (const Linear* layer : layers) {
    weights.push_back(pass.tape.param(layer->weight));
    if (layer->bias.defined()) biases.push_back(pass.tape.param(layer->bias));
  }
  return projections(x, weights, biases);
}

Var merge_heads(const Var& x) {
  const Var rows = permute(x, {0, 2, 1, 3});
  return reshape(contiguous(rows), {x.size(0), x.size(2), x.size(1) * x.size(3)});
}

MultiHeadAttention::MultiHeadAttention(std::int64_t width, std::int64_t head_count, bool bias,
                                       double dropout_p, RngKey rng, DType dtype)
    : query(width, width, bias, rng.at("query"), dtype),
      key(width, width, bias, rng.at("key"), dtype),
      value(width, width, bias, rng.at("value"), dtype),
      output(width, width, bias, rng.at("output"), dtype),
      heads(head_count),
      dropout_probability(dropout_p) {
  check(head_count > 0 && width % head_count == 0,
        "attention: {} heads do not divide width {}; choose a divisor", head_count, width);
}

void MultiHeadAttention::use_relative_positions(std::int64_t reach, RngKey rng, DType dtype) {
  relative.emplace(2 * reach - 1, query.weight.value().size(1) / heads, 0.02, rng.at("relative"),
                   dtype);
}

Var MultiHeadAttention::operator()(const Pass& pass, const Var& x, const Var& context,
                                   const AttentionScope& seen, const Var& residual) const {
  const ModuleScope scope(pass);
  const bool same = x.id == context.id && x.value.shares_storage(context.value);
  const std::vector<Var> from_context =
      same ? project(pass, x, {&query, &key, &value}) : project(pass, context, {&key, &value});
  const Var q = split_heads(same ? from_context[0] : query(pass.at("query"), x), heads);
  const Var k = split_heads(from_context[same ? 1 : 0], heads);
  const Var v = split_heads(from_context[same ? 2 : 1], heads);
  const double p = pass.mode == Mode::train ? dropout_probability : 0.0;
  Var mixed;
  if (relative) {
    mixed = relative_attention(pass, q, k, v, pass.tape.param(relative->weight), seen.mask,
                               seen.causal, p);
  } else {
    AttentionInputs inputs;
    inputs.mask = seen.mask;
    inputs.bias = seen.bias;
    inputs.options.causal = seen.causal;
    inputs.options.dropout = p;
    inputs.options.key = pass.at("dropout").key;
    mixed = attention(q, k, v, inputs).out;
  }
  return output(pass.at("output"), merge_heads(mixed), residual);
}

}  // namespace mf
