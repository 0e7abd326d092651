#include "memformer/baselines/transformer_xl.h"

#include "autograd/ops.h"
#include "nn/parameters.h"
#include "tensor/math.h"

namespace mf {

void validate(const TransformerXlConfig& c) {
  validate(static_cast<const RelativeStackConfig&>(c));
  check(c.cache >= 0 && c.cache <= 1 << 20,
        "configuration: model.cache is {}; it must lie in 0..{}", c.cache, 1 << 20);
}

MultiplyAdds multiply_adds(const TransformerXlConfig& c) {
  const std::int64_t layer = layer_multiply_adds(c, c.segment, c.cache + c.segment);
  return {(c.layers - 1) * layer, layer + head_multiply_adds(c)};
}

TransformerXl::TransformerXl(const TransformerXlConfig& config, RngKey key)
    : TokenModel((validate(config), config), key),
      stack_(config, config.cache + config.segment, key),
      cache_(config.cache) {
  mf::parameters(*this);  // gives each parameter its path as its name
}

std::vector<Parameter> TransformerXl::parameters() const { return mf::parameters(*this); }

State TransformerXl::initial_state(std::int64_t batch) const {
  const Tensor& table = tokens_.weight.value();
  State state;
  for (std::size_t l = 0; l < stack_.layers.size(); ++l)
    state.push_back({"cache." + std::to_string(l),
                     zeros({batch, 0, table.size(1)}, table.dtype(), table.device()),
                     true,
                     {}});
  state.push_back({"valid", zeros({batch, 0}, DType::u8, table.device()), false, {}});
  return state;
}

TokenModel::Reading TransformerXl::read(const Pass& pass, const Segment& segment,
                                        const LiveState& state, bool whole) const {
  const std::size_t layers = stack_.layers.size();
  check(state.size() == layers + 1,
        "transformer-xl: the state must be {} caches and 'valid'; got {} tensors", layers,
        state.size());
  Reading reading;
  reading.next = state;  // keeps names and boundary rules
  const std::int64_t batch = segment.batch(), length = segment.tokens.size(1);
  const Tensor valid = without_reset(state[layers].value.value, segment.reset);
  const Tensor fresh = full({batch, length}, 1, DType::u8, valid.device());
  reading.next[layers].value = constant(last_rows(valid, fresh, cache_));

  const std::int64_t memory = valid.size(1);
  Tensor mask;
  if (memory > 0) {
    const std::vector<Tensor> parts{valid, fresh};
    mask = concat(parts, 1).reshape({batch, 1, 1, memory + length});
  }
  const RelativeScope scope = stack_.scope(pass, length, memory, mask, true);
  Var x = embed(pass, segment);
  for (std::size_t l = 0; l < layers; ++l) {
    reading.next[l].value = last_rows(state[l].value, x, cache_);
    if (!whole && l + 1 == layers) break;  // nothing carried lies behind the last layer
    x = stack_.layers[l](pass.at("layers", static_cast<std::int64_t>(l)), x, state[l].value, scope);
  }
  if (whole) reading.hidden = stack_.finish(pass, x);
  return reading;
}

}  // namespace mf
