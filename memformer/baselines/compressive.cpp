#include "memformer/baselines/compressive.h"

#include <algorithm>

#include "autograd/ops.h"
#include "nn/parameters.h"
#include "tensor/math.h"

namespace mf {

void validate(const CompressiveConfig& c) {
  validate(static_cast<const RelativeStackConfig&>(c));
  check(c.cache >= 0 && c.compressed >= 0 && c.cache <= 1 << 20 && c.compressed <= 1 << 20,
        "configuration: model.cache {} and model.compressed {} must lie in 0..{}", c.cache,
        c.compressed, 1 << 20);
  check(c.rate >= 1 && c.segment % c.rate == 0 && c.cache % c.rate == 0,
        "configuration: model.rate is {}; it must divide model.segment {} and model.cache {}, so "
        "that whole groups of rows leave the cache",
        c.rate, c.segment, c.cache);
  check(c.reconstruction >= 0.0,
        "configuration: model.reconstruction is {}; it must not be negative", c.reconstruction);
}

MultiplyAdds multiply_adds(const CompressiveConfig& c) {
  const std::int64_t layer = layer_multiply_adds(c, c.segment, c.compressed + c.cache + c.segment);
  const bool convolves = !c.mean_pooling && c.compressed > 0;
  const std::int64_t convolutions = convolves ? c.layers * c.segment * c.width * c.width : 0;
  return {(c.layers - 1) * layer + convolutions, layer + head_multiply_adds(c)};
}

CompressiveTransformer::CompressiveTransformer(const CompressiveConfig& config, RngKey key)
    : TokenModel((validate(config), config), key),
      config_(config),
      stack_(config, config.compressed + config.cache + config.segment, key) {
  if (!config.mean_pooling && config.compressed > 0)
    for (std::int64_t l = 0; l < config.layers; ++l)
      compressors_.emplace_back(config.rate * config.width, config.width, true,
                                key.at("compressors").at(static_cast<std::uint64_t>(l)),
                                config.dtype);
  mf::parameters(*this);  // gives each parameter its path as its name
}

std::vector<Parameter> CompressiveTransformer::parameters() const { return mf::parameters(*this); }

State CompressiveTransformer::initial_state(std::int64_t batch) const {
  const Device device = tokens_.weight.value().device();
  State state;
  for (std::int64_t l = 0; l < config_.layers; ++l)
    for (const char* kind : {"cache.", "compressed."})
      state.push_back({kind + std::to_string(l),
                       zeros({batch, 0, config_.width}, config_.dtype, device),
                       true,
                       {}});
  for (const char* name : {"valid", "compressed_valid"})
    state.push_back({name, zeros({batch, 0}, DType::u8, device), false, {}});
  return state;
}

Var CompressiveTransformer::compress(const Pass& pass, std::size_t layer, const Var& old) const {
  const std::int64_t batch = old.size(0), groups = old.size(1) / config_.rate;
  if (config_.mean_pooling)
    return mean(reshape(old, {batch, groups, config_.rate, config_.width}), {2});
  return compressors_[layer](pass.at("compressors", static_cast<std::int64_t>(layer)),
                             reshape(old, {batch, groups, config_.rate * config_.width}));
}

TokenModel::Reading CompressiveTransformer::read(const Pass& pass, const Segment& segment,
                                                 const LiveState& state, bool whole) const {
  const std::size_t layers = stack_.layers.size();
  const std::size_t valid_at = 2 * layers, compressed_valid_at = valid_at + 1;
  check(state.size() == 2 * layers + 2,
        "compressive: the state must be {} caches, as many compressed ones and two masks; got {} "
        "tensors",
        layers, state.size());
  Reading reading;
  reading.next = state;  // keeps names and boundary rules
  const std::int64_t batch = segment.batch(), length = segment.tokens.size(1);
  const Tensor valid = without_reset(state[valid_at].value.value, segment.reset);
  const Tensor compressed_valid =
      without_reset(state[compressed_valid_at].value.value, segment.reset);
  const Tensor fresh = full({batch, length}, 1, DType::u8, valid.device());
  reading.next[valid_at].value = constant(last_rows(valid, fresh, config_.cache));

  // Rows that no longer fit into the cache; over the first segments there are none.
  const std::int64_t cached = valid.size(1), remembered = compressed_valid.size(1) + cached;
  const std::int64_t leaving = std::max<std::int64_t>(cached + length - config_.cache, 0);
  const bool compresses = config_.compressed > 0 && leaving > 0;
  check(!compresses || leaving % config_.rate == 0,
        "compressive: a segment of {} tokens pushes {} rows out of the cache, which model.rate {} "
        "does not divide; read segments whose length it divides",
        length, leaving, config_.rate);
  const std::vector<Tensor> parts{compressed_valid, valid, fresh};
  Tensor leaving_mask, group_mask;
  if (compresses) {
    // The rows of the present document are the last ones: a group that begins before it is hidden.
    const Tensor rows = concat(std::span(parts).subspan(1), 1).slice(1, 0, leaving).contiguous();
    const Tensor groups = rows.reshape({batch, leaving / config_.rate, config_.rate})
                              .slice(2, 0, 1)
                              .contiguous()
                              .reshape({batch, leaving / config_.rate});
    leaving_mask = rows.reshape({batch, 1, 1, leaving});
    group_mask = groups.reshape({batch, 1, 1, groups.size(1)});
    reading.next[compressed_valid_at].value =
        constant(last_rows(compressed_valid, groups, config_.compressed));
  } else {
    reading.next[compressed_valid_at].value = constant(compressed_valid);
  }

  Tensor mask;
  if (remembered > 0) mask = concat(parts, 1).reshape({batch, 1, 1, remembered + length});
  const RelativeScope scope = stack_.scope(pass, length, remembered, mask, true);
  const bool reconstructs = compresses && whole && pass.mode == Mode::train &&
                            config_.reconstruction > 0.0 && !config_.mean_pooling;
  Var x = embed(pass, segment);
  for (std::size_t l = 0; l < layers; ++l) {
    const Var& cache = state[2 * l].value;
    const Var& compressed = state[2 * l + 1].value;
    reading.next[2 * l].value = last_rows(cache, x, config_.cache);
    if (compresses) {
      const Var rows = cached > 0 ? concat({cache, x}, 1) : x;
      const Var old = contiguous(slice(rows, 1, 0, leaving));
      const Var still = constant(old.value);
      const Var z = compress(pass, l, config_.task_gradient ? old : still);
      reading.next[2 * l + 1].value =
          last_rows(compressed, config_.task_gradient ? z : constant(z.value), config_.compressed);
      if (reconstructs) {
        const auto attended = [&](const Var& rows_seen, const Tensor& seen) {
          return stack_.layers[l].content_attention(constant(x.value), rows_seen, seen);
        };
        const Var written = config_.task_gradient ? compress(pass, l, still) : z;
        const Var difference =
            sub(constant(attended(still, leaving_mask).value), attended(written, group_mask));
        const Var loss = scale(mean(square(difference)), config_.reconstruction);
        reading.auxiliary = reading.auxiliary.value.defined() ? add(reading.auxiliary, loss) : loss;
      }
    }
    if (!whole && l + 1 == layers) break;  // nothing carried lies behind the last layer
    const Var memory = compressed.size(1) > 0 ? concat({compressed, cache}, 1) : cache;
    x = stack_.layers[l](pass.at("layers", static_cast<std::int64_t>(l)), x, memory, scope);
  }
  if (whole) reading.hidden = stack_.finish(pass, x);
  return reading;
}

}  // namespace mf
