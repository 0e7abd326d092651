#include "memformer/model/decoder.h"

#include "autograd/ops.h"
#include "tensor/math.h"

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
  const double p = dropout_probability;
  // eq. D1, D2 and D3.
  const Var a = add_residual(pass.at("self_dropout"), x, p, [&](const Var& residual) {
    const Var normed = self_norm(pass.at("self_norm"), x);
    return self_attention(pass.at("self_attention"), normed, normed, seen, residual);
  });
  const Var b = add_residual(pass.at("cross_dropout"), a, p, [&](const Var& residual) {
    return cross_attention(pass.at("cross_attention"), cross_norm(pass.at("cross_norm"), a),
                           encoded, cross, residual);
  });
  return add_residual(pass.at("feed_forward_dropout"), b, p, [&](const Var& residual) {
    return feed_forward(pass.at("feed_forward"), feed_forward_norm(pass.at("feed_forward_norm"), b),
                        residual);
  });
}

Decoder::Decoder(const ModelConfig& c, RngKey key)
    : embedding(c, false, key), layer_replay(c.layer_replay) {
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
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto layer = [&own = layers[i], cross](const Pass& inner, const Var& input,
                                                 const Var& context, const AttentionScope& self) {
      return own(inner, input, context, self, cross);
    };
    x = run_layer(pass.at("layers", static_cast<std::int64_t>(i)), layer_replay, layer, x, encoded,
                  seen);
  }
  return norm ? (*norm)(pass.at("norm"), x) : x;
}

namespace {

/// The bias of every distance, the farthest first: see DecoderCache::bias.
Tensor bias_by_falling_distance(const RelativeBias& bias, std::int64_t length) {
  std::vector<std::int32_t> buckets;
  for (std::int64_t distance = length - 1; distance >= 0; --distance)
    buckets.push_back(
        relative_bucket(distance, 0, bias.buckets, bias.max_distance, bias.two_sided));
  const Tensor& table = bias.weight.value();
  const Tensor rows = gather_rows(table, from_host(buckets, {length}, table.device()));
  return rows.transpose().contiguous().reshape({table.size(1), 1, length});
}

}  // namespace

void Decoder::start(DecoderCache& cache, const Tensor& encoded, const Tensor& padding) const {
  const std::int64_t longest = embedding.longest;
  const std::int64_t width = embedding.tokens.weight.value().size(1);
  check(encoded.defined() && encoded.rank() == 3 && encoded.size(1) >= 1 &&
            encoded.size(1) <= longest && encoded.size(2) == width,
        "decoder: the encoded segment must be [batch, 1..{}, {}]; got {}", longest, width, encoded);
  const std::int64_t batch = encoded.size(0);
  cache.layers.resize(layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    auto& [self, cross] = cache.layers[i];
    self.reset(layers[i].self_attention, batch, longest, encoded.device());
    cross.reset(layers[i].cross_attention, batch, longest, encoded.device());
    cross.append(layers[i].cross_attention, encoded);
  }
  cache.padding = key_mask(padding);
  if (!embedding.sinusoidal) {
    cache.sinusoidal = Tensor{};
  } else if (const Tensor& table = cache.sinusoidal;
             !table.defined() || table.shape() != Shape{longest, width} ||
             table.dtype() != encoded.dtype() || table.device() != encoded.device()) {
    cache.sinusoidal = sinusoidal_positions(longest, width, encoded.dtype()).to(encoded.device());
  }
  cache.bias = embedding.relative_bias ? bias_by_falling_distance(*embedding.relative_bias, longest)
                                       : Tensor{};
}

Tensor Decoder::next(DecoderCache& cache, const Tensor& ids) const {
  check(!cache.layers.empty() && cache.layers.size() == layers.size(),
        "decoder: the cache has {} layers, the decoder {}; call start first", cache.layers.size(),
        layers.size());
  const std::int64_t position = cache.position(), longest = embedding.longest;
  check(position < longest,
        "decoder: all {} positions of the segment are read; start the next segment", longest);
  const std::int64_t batch = cache.layers.front().self.keys.size(0);
  check(ids.defined() && ids.shape() == Shape{batch}, "decoder: ids must be i32[{}]; got {}", batch,
        ids);

  Tensor x = gather_rows(embedding.tokens.weight.value(), ids);
  const std::int64_t width = x.size(1);
  if (embedding.embedding_scale != 1.0) x = affine(x, embedding.embedding_scale);
  const Tensor& positions =
      embedding.positions ? embedding.positions->weight.value() : cache.sinusoidal;
  if (positions.defined()) add_(x, positions.slice(0, position, position + 1));
  const Tensor bias =
      cache.bias.defined() ? cache.bias.slice(2, longest - 1 - position, longest) : Tensor{};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const DecoderLayer& layer = layers[i];
    auto& [self, cross] = cache.layers[i];
    const Tensor normed = infer(layer.self_norm, x);
    self.append(layer.self_attention, normed.reshape({batch, 1, width}));
    add_(x, infer(layer.self_attention, normed, self, {}, bias));
    add_(x, infer(layer.cross_attention, infer(layer.cross_norm, x), cross, cache.padding, {}));
    add_(x, infer(layer.feed_forward, infer(layer.feed_forward_norm, x)));
  }
  return norm ? infer(*norm, x) : x;
}

}  // namespace mf
