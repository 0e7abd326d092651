#include "memformer/baselines/relative_stack.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "nn/dropout.h"

namespace mf {
namespace {

/// R_delta: first all sines, then all cosines, of delta / 10000^(2i/width).
Tensor distance_sinusoids(std::int64_t rows, std::int64_t width, DType dtype) {
  std::vector<double> table(static_cast<std::size_t>(rows * width));
  const std::int64_t half = width / 2;
  for (std::int64_t i = 0; i < half; ++i) {
    const double slowness =
        std::pow(10000.0, 2.0 * static_cast<double>(i) / static_cast<double>(width));
    for (std::int64_t delta = 0; delta < rows; ++delta) {
      const double angle = static_cast<double>(delta) / slowness;
      table[static_cast<std::size_t>(delta * width + i)] = std::sin(angle);
      table[static_cast<std::size_t>(delta * width + half + i)] = std::cos(angle);
    }
  }
  return from_host(table, {rows, width}).to(dtype);
}

Linear without_bias(std::int64_t in, std::int64_t out, RngKey key, DType dtype) {
  return {in, out, false, key, dtype};
}

}  // namespace

void validate(const RelativeStackConfig& c) {
  validate(static_cast<const TokenModelConfig&>(c));
  check(c.width % 2 == 0,
        "configuration: model.width is {}; half of the position's features are sines, so it must "
        "be even",
        c.width);
  check(c.heads >= 1 && c.head_width >= 0 && c.head_width <= 1 << 16,
        "configuration: model.heads {} must be positive and model.head_width {} lie in 0..65536",
        c.heads, c.head_width);
  check(c.head_width > 0 || c.width % c.heads == 0,
        "configuration: model.heads is {}, which does not divide model.width {}; choose a divisor "
        "or give model.head_width",
        c.heads, c.width);
  check(c.feed_forward >= 1 && c.feed_forward <= 1 << 18,
        "configuration: model.feed_forward is {}; it must lie in 1..{}", c.feed_forward, 1 << 18);
  check(c.attention_dropout >= 0.0 && c.attention_dropout < 1.0,
        "configuration: model.attention_dropout is {}; it must lie in [0, 1)", c.attention_dropout);
  check(c.norm_epsilon > 0.0, "configuration: model.norm_epsilon is {}; it must be positive",
        c.norm_epsilon);
}

RelativeLayer::RelativeLayer(const RelativeStackConfig& c, RngKey rng)
    : attention_norm(c.width, c.norm_epsilon, c.dtype),
      feed_forward_norm(c.width, c.norm_epsilon, c.dtype),
      feed_forward(c.width, c.feed_forward, c.activation, c.dropout, rng.at("feed_forward"),
                   c.dtype),
      heads(c.heads),
      pre_norm(c.pre_norm),
      dropout_probability(c.dropout),
      attention_dropout(c.attention_dropout) {
  const std::int64_t inner = c.heads * c.features_per_head();
  query = without_bias(c.width, inner, rng.at("query"), c.dtype);
  key = without_bias(c.width, inner, rng.at("key"), c.dtype);
  value = without_bias(c.width, inner, rng.at("value"), c.dtype);
  position = without_bias(c.width, inner, rng.at("position"), c.dtype);
  output = without_bias(inner, c.width, rng.at("output"), c.dtype);
}

Var RelativeLayer::operator()(const Pass& pass, const Var& x, const Var& memory,
                              const RelativeScope& scope) const {
  const ModuleScope module(pass);
  const double p = dropout_probability;
  const bool remembers = memory.size(1) > 0;
  const auto normed = [&](const Var& rows) {
    return pre_norm ? attention_norm(pass.at("attention_norm"), rows) : rows;
  };
  const auto attend = [&](const Var& residual) {
    const Var own = normed(x);
    const Var all = remembers ? concat({normed(memory), own}, 1) : own;
    const Var q = split_heads(query(pass.at("query"), own), heads);
    const std::vector<Var> from_all = project(pass, all, {&key, &value});
    const Var k = split_heads(from_all[0], heads);
    const Var v = split_heads(from_all[1], heads);
    const Var r = position(pass.at("position"), scope.sinusoids);  // [S, H dh]
    const Var r_by_head = permute(reshape(r, {r.size(0), heads, -1}), {1, 2, 0});
    const double factor = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
    const Var by_distance = matmul(add(q, scope.position_bias), r_by_head);  // [B, H, T, S]
    AttentionInputs inputs;
    inputs.mask = scope.mask;
    inputs.bias = scale(gather(by_distance, scope.distance), factor);
    inputs.options.causal = scope.causal;
    inputs.options.dropout = pass.mode == Mode::train ? attention_dropout : 0.0;
    inputs.options.key = pass.at("attention_dropout").key;
    const Var mixed = attention(add(q, scope.content_bias), k, v, inputs).out;
    return output(pass.at("output"), merge_heads(mixed), residual);
  };
  const auto feed = [&](const Var& y, const Var& residual) {
    return feed_forward(pass.at("feed_forward"), y, residual);
  };
  if (pre_norm) {
    const Var y = add_residual(pass.at("attention_residual"), x, p, attend);
    return add_residual(pass.at("feed_forward_residual"), y, p, [&](const Var& residual) {
      return feed(feed_forward_norm(pass.at("feed_forward_norm"), y), residual);
    });
  }
  const Var y = attention_norm(pass.at("attention_norm"),
                               add_residual(pass.at("attention_residual"), x, p, attend));
  return feed_forward_norm(pass.at("feed_forward_norm"),
                           add_residual(pass.at("feed_forward_residual"), y, p,
                                        [&](const Var& residual) { return feed(y, residual); }));
}

Var RelativeLayer::content_attention(const Var& x, const Var& rows, const Tensor& mask) const {
  const auto normed = [&](const Var& y) {
    return pre_norm ? layer_norm(y, constant(attention_norm.gain.value()),
                                 constant(attention_norm.bias.value()), attention_norm.epsilon)
                    : y;
  };
  const auto projected = [&](const Linear& layer, const Var& y) {
    return split_heads(linear(y, constant(layer.weight.value()), {}), heads);
  };
  const Var keys = normed(rows);
  AttentionInputs inputs;
  inputs.mask = mask;
  return merge_heads(
      attention(projected(query, normed(x)), projected(key, keys), projected(value, keys), inputs)
          .out);
}

RelativeStack::RelativeStack(const RelativeStackConfig& c, std::int64_t rows, RngKey key)
    : content_bias(normal_parameter({c.heads, c.features_per_head()}, 0.02, key.at("content_bias"),
                                    c.dtype)),
      position_bias(normal_parameter({c.heads, c.features_per_head()}, 0.02,
                                     key.at("position_bias"), c.dtype)),
      sinusoids(distance_sinusoids(rows, c.width, c.dtype)) {
  for (std::int64_t i = 0; i < c.layers; ++i)
    layers.emplace_back(c, key.at("layers").at(static_cast<std::uint64_t>(i)));
  if (c.pre_norm) norm.emplace(c.width, c.norm_epsilon, c.dtype);
}

RelativeScope RelativeStack::scope(const Pass& pass, std::int64_t queries, std::int64_t memory,
                                   const Tensor& mask, bool causal) const {
  const Tensor& u = content_bias.value();
  const std::int64_t keys = memory + queries;
  std::vector<std::int32_t> distance;
  distance.reserve(static_cast<std::size_t>(queries * keys));
  for (std::int64_t i = 0; i < queries; ++i)
    for (std::int64_t j = 0; j < keys; ++j)
      distance.push_back(static_cast<std::int32_t>(std::max<std::int64_t>(i + memory - j, 0)));
  const auto per_head = [&](const Parameter& bias) {
    return reshape(pass.tape.param(bias), {u.size(0), 1, u.size(1)});
  };
  RelativeScope scope;
  scope.sinusoids = constant(sinusoids.slice(0, 0, keys).to(u.device()));
  scope.distance = from_host(distance, {queries, keys}, u.device());
  scope.mask = mask;
  scope.causal = causal;
  scope.content_bias = per_head(content_bias);
  scope.position_bias = per_head(position_bias);
  return scope;
}

Var RelativeStack::finish(const Pass& pass, const Var& x) const {
  return norm ? (*norm)(pass.at("norm"), x) : x;
}

// eq. C6.
std::int64_t layer_multiply_adds(const RelativeStackConfig& c, std::int64_t T, std::int64_t S) {
  const std::int64_t inner = c.heads * c.features_per_head();
  return 2 * T * c.width * inner + 3 * S * c.width * inner + 3 * T * S * inner +
         2 * T * c.width * c.feed_forward;
}

Var last_rows(const Var& memory, const Var& x, std::int64_t count) {
  const std::int64_t fresh = x.size(1), old = memory.size(1);
  // A slice of one row of the batch, or of no rows, is contiguous, and would keep all of x.
  if (count < fresh) return concat({slice(x, 1, fresh - count, fresh)}, 1);
  const std::int64_t kept = std::min(old, count - fresh);
  return kept == 0 ? x : concat({slice(memory, 1, old - kept, old), x}, 1);
}

Tensor last_rows(const Tensor& memory, const Tensor& x, std::int64_t count) {
  const std::vector<Tensor> parts{memory, x};
  const Tensor all = concat(parts, 1);
  const std::int64_t rows = all.size(1);
  return all.slice(1, std::max<std::int64_t>(rows - count, 0), rows).clone();
}

Tensor without_reset(const Tensor& valid, const Tensor& reset) {
  if (!reset.defined() || valid.elements() == 0) return valid;
  const Tensor kept = valid.to(DType::f32);
  return where(reset.reshape({reset.size(0), 1}), scalar(0.0, DType::f32, valid.device()), kept)
      .to(DType::u8);
}

}  // namespace mf
