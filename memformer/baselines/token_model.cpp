#include "memformer/baselines/token_model.h"

#include <cmath>

#include "autograd/ops.h"
#include "nn/dropout.h"

namespace mf {

void validate(const TokenModelConfig& c) {
  const auto between = [](std::string_view name, std::int64_t value, std::int64_t limit) {
    check(value >= 1 && value <= limit, "configuration: model.{} is {}; it must lie in 1..{}", name,
          value, limit);
  };
  // Limits that keep a damaged file from sizing an array before anything else notices.
  between("vocabulary", c.vocabulary, 1 << 24);
  between("width", c.width, 1 << 16);
  between("layers", c.layers, 1024);
  between("segment", c.segment, 1 << 20);
  check(c.dropout >= 0.0 && c.dropout < 1.0,
        "configuration: model.dropout is {}; it must lie in [0, 1)", c.dropout);
  check(c.embedding_scale >= 0.0 && c.embedding_deviation >= 0.0,
        "configuration: model.embedding_scale {} and model.embedding_deviation {} must not be "
        "negative",
        c.embedding_scale, c.embedding_deviation);
  check(is_float(c.dtype), "configuration: model.dtype is {}; use f32 or f64", c.dtype);
}

double TokenModelConfig::token_scale() const {
  return embedding_scale > 0.0 ? embedding_scale : std::sqrt(static_cast<double>(width));
}

double TokenModelConfig::token_deviation() const {
  return embedding_deviation > 0.0 ? embedding_deviation
                                   : 1.0 / std::sqrt(static_cast<double>(width));
}

std::int64_t head_multiply_adds(const TokenModelConfig& c) {
  return c.segment * c.width * c.vocabulary;
}

TokenModel::TokenModel(const TokenModelConfig& c, RngKey key)
    : tokens_(c.vocabulary, c.width, c.token_deviation(), key.at("tokens"), c.dtype),
      output_bias_(constant_parameter({c.vocabulary}, 0.0, c.dtype)),
      embedding_scale_(c.token_scale()),
      dropout_(c.dropout),
      longest_(c.segment) {}

Var TokenModel::embed(const Pass& pass, const Segment& segment) const {
  const Tensor& ids = segment.tokens;
  check(ids.rank() == 2 && ids.size(1) >= 1 && ids.size(1) <= longest_,
        "embedding: tokens must be i32[batch, 1..{}]; got {}; raise model.segment or cut the text "
        "into shorter segments",
        longest_, ids);
  check(!segment.padding.defined() && !segment.decoder_inputs.defined(),
        "token model: the segment has padding or decoder inputs; this model reads segments of "
        "Prediction::next_token");
  const Var x = scale(tokens_(pass.at("tokens"), ids), embedding_scale_);
  return dropout(pass.at("dropout"), x, dropout_);
}

LiveState TokenModel::next_state(const Pass& pass, const Segment& segment,
                                 const LiveState& state) const {
  return read(pass, segment, state, false).next;
}

StepResult TokenModel::step(const Pass& pass, const Segment& segment,
                            const LiveState& state) const {
  Reading reading = read(pass, segment, state, true);
  StepResult result;
  result.auxiliary = reading.auxiliary;
  result.next = std::move(reading.next);
  if (!segment.targets.defined()) return result;
  result.outputs = linear(contiguous(reading.hidden), transpose(pass.tape.param(tokens_.weight)),
                          pass.tape.param(output_bias_));
  result.loss = summed_loss(result.outputs, segment.targets);
  return result;
}

}  // namespace mf
