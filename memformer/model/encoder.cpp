#include "memformer/model/encoder.h"

#include <array>
#include <cmath>

#include "autograd/ops.h"
#include "autograd/replay.h"

namespace mf {

Tensor key_mask(const Tensor& padding) {
  return padding.defined() ? padding.reshape({padding.size(0), 1, 1, padding.size(1)}) : Tensor{};
}

InputEmbedding::InputEmbedding(const ModelConfig& c, bool two_sided, RngKey key)
    : sinusoidal(c.positions == Positions::sinusoidal),
      embedding_scale(c.embedding_scale),
      dropout_probability(c.dropout),
      longest(c.segment) {
  const double usual = c.tie_output ? 1.0 / std::sqrt(static_cast<double>(c.width)) : 1.0;
  const double deviation = c.embedding_deviation > 0.0 ? c.embedding_deviation : usual;
  tokens = Embedding(c.vocabulary, c.width, deviation, key.at("tokens"), c.dtype);
  if (c.positions == Positions::learned)
    positions.emplace(c.segment, c.width, 0.02, key.at("positions"), c.dtype);
  if (c.positions == Positions::relative_bias)
    relative_bias.emplace(c.relative_buckets, c.relative_max_distance, two_sided, c.heads,
                          key.at("relative_bias"), c.dtype);
}

Var InputEmbedding::operator()(const Pass& pass, const Tensor& ids) const {
  check(ids.rank() == 2 && ids.size(1) >= 1 && ids.size(1) <= longest,
        "embedding: tokens must be i32[batch, 1..{}]; got {}; raise model.segment or cut the text "
        "into shorter segments",
        longest, ids);
  const std::int64_t length = ids.size(1);
  Var x = tokens(pass.at("tokens"), ids);
  if (embedding_scale != 1.0) x = scale(x, embedding_scale);
  if (positions) x = add(x, slice(pass.tape.param(positions->weight), 0, 0, length));
  if (sinusoidal)
    x = add(x, constant(sinusoidal_positions(length, x.size(2), x.dtype()).to(x.device())));
  return dropout(pass.at("dropout"), x, dropout_probability);
}

EncoderLayer::EncoderLayer(const ModelConfig& c, RngKey key)
    : self_norm(c.width, c.norm_epsilon, c.dtype),
      self_attention(c.width, c.heads, c.attention_bias, c.attention_dropout,
                     key.at("self_attention"), c.dtype),
      feed_forward_norm(c.width, c.norm_epsilon, c.dtype),
      feed_forward(c.width, c.feed_forward, c.activation, c.dropout, key.at("feed_forward"),
                   c.dtype),
      dropout_probability(c.dropout) {
  if (c.positions == Positions::simplified_relative)
    self_attention.use_relative_positions(c.segment, key.at("self_attention"), c.dtype);
  if (c.slots > 0) reader.emplace(c, key);
}

Var EncoderLayer::operator()(const Pass& pass, const Var& x, const Var& memory,
                             const AttentionScope& seen) const {
  const ModuleScope scope(pass);
  const double p = dropout_probability;
  // eq. E1, E2 and E3.
  const Var a = add_residual(pass.at("self_dropout"), x, p, [&](const Var& residual) {
    const Var normed = self_norm(pass.at("self_norm"), x);
    return self_attention(pass.at("self_attention"), normed, normed, seen, residual);
  });
  const Var b =
      !reader ? a : add_residual(pass.at("memory_dropout"), a, p, [&](const Var& residual) {
        return (*reader)(pass, a, memory, residual);
      });
  return add_residual(pass.at("feed_forward_dropout"), b, p, [&](const Var& residual) {
    return feed_forward(pass.at("feed_forward"), feed_forward_norm(pass.at("feed_forward_norm"), b),
                        residual);
  });
}

Var run_layer(const Pass& pass, bool replayed, LayerFunction layer, const Var& x,
              const Var& context, const AttentionScope& seen) {
  if (!replayed || !pass.tape.records()) return layer(pass, x, context, seen);
  const auto run = [layer = std::move(layer), mask = seen.mask, causal = seen.causal](
                       const Pass& inner, std::span<const Var> inputs) {
    return std::vector<Var>{layer(inner, inputs[0], inputs[1], {mask, inputs[2], causal})};
  };
  const std::array inputs{x, context, seen.bias};
  return replay(pass, run, inputs).front();
}

Encoder::Encoder(const ModelConfig& c, RngKey key, bool is_causal)
    : embedding(c, !is_causal, key), layer_replay(c.layer_replay), causal(is_causal) {
  for (std::int64_t i = 0; i < c.encoder_layers; ++i)
    layers.emplace_back(c, key.at("layers").at(static_cast<std::uint64_t>(i)));
  if (c.final_norm) norm.emplace(c.width, c.norm_epsilon, c.dtype);
}

Var Encoder::operator()(const Pass& pass, const Tensor& tokens, const Tensor& padding,
                        const Var& memory) const {
  const ModuleScope scope(pass);
  Var x = embedding(pass.at("embedding"), tokens);
  AttentionScope seen;
  seen.mask = key_mask(padding);
  seen.causal = causal;
  if (embedding.relative_bias)
    seen.bias = (*embedding.relative_bias)(pass.at("relative_bias"), x.size(1), x.size(1));
  for (std::size_t i = 0; i < layers.size(); ++i)
    x = run_layer(pass.at("layers", static_cast<std::int64_t>(i)), layer_replay,
                  std::cref(layers[i]), x, memory, seen);
  return norm ? (*norm)(pass.at("norm"), x) : x;
}

}  // namespace mf
