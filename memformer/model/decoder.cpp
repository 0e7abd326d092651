#include "memformer/model/decoder.h"

#include "autograd/ops.h"

namespace mf {

DecoderLayer::DecoderLayer(const ModelConfig& c, RngKey key)
    : self_norm(c.width, c.norm_epsilon, c.dtype),
      self_attention(c.width, c.heads, c.attention_bias, c.attention_dropout,
                     key.at("self_attention"), c.dtype),
      cross_norm(c.width, c.norm_epsilon, c.dtype),
      cross_attention(c.width, c.heads, c.attention_bias, c.attention_dropout,
                      key.at("cross_attention"), c.dtype),
      feed_forward_norm(c.width, c.norm_epsilon, c.dtype),
      feed_forward(c.width, c.feed_forward, c.activation, c.dropout, key.at("feed_forward"),
                   c.dtype),
      dropout_probability(c.dropout) {
  if (c.positions == Positions::simplified_relative)
    self_attention.use_relative_positions(c.segment, key.at("self_attention"), c.dtype);
}

Var DecoderLayer::operator()(const Pass& pass, const Var& x, const Var& encoded,
                             const AttentionScope& seen, const AttentionScope& cross) const {
  const ModuleScope scope(pass);
  const auto residual = [&](const Var& base, const char* name, const Var& change) {
    return add(base, dropout(pass.at(name), change, dropout_probability));
  };
  const Var normed = self_norm(pass.at("self_norm"), x);
  Var y =
      residual(x, "self_dropout", self_attention(pass.at("self_attention"), normed, normed, seen));
  y = residual(y, "cross_dropout",
               cross_attention(pass.at("cross_attention"), cross_norm(pass.at("cross_norm"), y),
                               encoded, cross));
  return residual(
      y, "feed_forward_dropout",
      feed_forward(pass.at("feed_forward"), feed_forward_norm(pass.at("feed_forward_norm"), y)));
}

Decoder::Decoder(const ModelConfig& c, RngKey key) : embedding(c, false, key) {
  for (std::int64_t i = 0; i < c.decoder_layers; ++i)
    layers.emplace_back(c, key.at("layers").at(static_cast<std::uint64_t>(i)));
  if (c.final_norm) norm.emplace(c.width, c.norm_epsilon, c.dtype);
}

Var Decoder::operator()(const Pass& pass, const Tensor& inputs, const Var& encoded,
                        const Tensor& padding) const {
  const ModuleScope scope(pass);
  Var x = embedding(pass.at("embedding"), inputs);
  AttentionScope seen;
  seen.causal = true;
  if (embedding.relative_bias)
    seen.bias = (*embedding.relative_bias)(pass.at("relative_bias"), x.size(1), x.size(1));
  AttentionScope cross;
  cross.mask = key_mask(padding);
  for (std::size_t i = 0; i < layers.size(); ++i)
    x = layers[i](pass.at("layers", static_cast<std::int64_t>(i)), x, encoded, seen, cross);
  return norm ? (*norm)(pass.at("norm"), x) : x;
}

}  // namespace mf
