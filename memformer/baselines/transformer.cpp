#include "memformer/baselines/transformer.h"

#include "autograd/ops.h"
#include "nn/parameters.h"

namespace mf {

ModelConfig TransformerConfig::encoder() const {
  ModelConfig c;
  c.architecture = Architecture::encoder_only;
  c.vocabulary = vocabulary;
  c.width = width;
  c.heads = heads;
  c.encoder_layers = layers;
  c.feed_forward = feed_forward;
  c.segment = segment;
  c.slots = 0;
  c.activation = activation;
  c.dropout = dropout;
  c.attention_dropout = attention_dropout;
  c.norm_epsilon = norm_epsilon;
  c.positions = positions;
  c.embedding_scale = token_scale();
  c.embedding_deviation = embedding_deviation;
  c.dtype = dtype;
  return c;
}

void validate(const TransformerConfig& config) {
  validate(static_cast<const TokenModelConfig&>(config));
  validate(config.encoder());
}

MultiplyAdds multiply_adds(const TransformerConfig& config) {
  return {0, multiply_adds(config.encoder()).total()};
}

Transformer::Transformer(const TransformerConfig& config, RngKey key)
    : TokenModel((validate(config), config), key), encoder_(config.encoder(), key, true) {
  encoder_.embedding.tokens = tokens_;
  mf::parameters(*this);  // gives each parameter its path as its name
}

std::vector<Parameter> Transformer::parameters() const { return mf::parameters(*this); }

State Transformer::initial_state(std::int64_t) const { return {}; }

TokenModel::Reading Transformer::read(const Pass& pass, const Segment& segment, const LiveState&,
                                      bool whole) const {
  Reading reading;
  if (whole) reading.hidden = encoder_(pass, segment.tokens, {}, {});
  return reading;
}

}  // namespace mf
