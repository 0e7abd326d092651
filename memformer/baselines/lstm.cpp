#include "memformer/baselines/lstm.h"

#include <algorithm>
#include <array>

#include "autograd/ops.h"
#include "autograd/replay.h"
#include "nn/dropout.h"
#include "nn/parameters.h"

namespace mf {

void validate(const LstmConfig& c) {
  validate(static_cast<const TokenModelConfig&>(c));
  check(c.replay_tokens >= 0,
        "configuration: model.replay_tokens is {}; give 0 (none) or a number of tokens",
        c.replay_tokens);
}

MultiplyAdds multiply_adds(const LstmConfig& c) {
  return {c.layers * 8 * c.segment * c.width * c.width, head_multiply_adds(c)};
}

Lstm::Layer::Layer(const LstmConfig& c, RngKey key)
    : input(c.width, 4 * c.width, true, key.at("input"), c.dtype),
      hidden(c.width, 4 * c.width, false, key.at("hidden"), c.dtype) {
  Tensor forget_bias = input.bias.value().slice(0, c.width, 2 * c.width);
  forget_bias.copy_(full({c.width}, 1.0, c.dtype));
}

Lstm::Layer::Run Lstm::Layer::run(const Pass& pass, const Var& x, const Var& hidden_before,
                                  const Var& cell_before) const {
  const ModuleScope scope(pass);
  const Var projected = input(pass.at("input"), x);
  const std::int64_t tokens = x.size(1), width = hidden_before.size(1);
  Run result{{}, hidden_before, cell_before};
  std::vector<Var> rows;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const Var from_input = slice(projected, 1, t, t + 1);
    const Var gates = add(reshape(from_input, {from_input.size(0), 4 * width}),
                          hidden(pass.at("hidden"), result.hidden));
    const auto gate = [&](std::int64_t index) {
      return slice(gates, 1, index * width, (index + 1) * width);
    };
    result.cell = add(mul(sigmoid(gate(1)), result.cell), mul(sigmoid(gate(0)), tanh(gate(2))));
    result.hidden = mul(sigmoid(gate(3)), tanh(result.cell));
    rows.push_back(reshape(result.hidden, {-1, 1, width}));
  }
  result.rows = concat(rows, 1);
  return result;
}

Lstm::Lstm(const LstmConfig& config, RngKey key)
    : TokenModel((validate(config), config), key),
      width_(config.width),
      replay_tokens_(config.replay_tokens),
      dropout_probability_(config.dropout) {
  for (std::int64_t l = 0; l < config.layers; ++l)
    layers_.emplace_back(config, key.at("layers").at(static_cast<std::uint64_t>(l)));
  mf::parameters(*this);  // gives each parameter its path as its name
}

std::vector<Parameter> Lstm::parameters() const { return mf::parameters(*this); }

State Lstm::initial_state(std::int64_t batch) const {
  const Tensor& table = tokens_.weight.value();
  State state;
  for (std::size_t l = 0; l < layers_.size(); ++l)
    for (const char* kind : {"hidden.", "cell."})
      state.push_back({kind + std::to_string(l),
                       zeros({batch, width_}, table.dtype(), table.device()),
                       true,
                       {}});
  return state;
}

TokenModel::Reading Lstm::read(const Pass& pass, const Segment& segment, const LiveState& state,
                               bool whole) const {
  check(state.size() == 2 * layers_.size(),
        "lstm: the state must be a hidden and a cell tensor for each of {} layers; got {} tensors",
        layers_.size(), state.size());
  Reading reading;
  reading.next = state;  // keeps names and boundary rules
  Var x = embed(pass, segment);
  const std::int64_t length = x.size(1);
  const std::int64_t chunk = replay_tokens_ > 0 ? std::min(replay_tokens_, length) : length;
  const Var zero = constant(zeros({1, width_}, x.dtype(), x.device()));
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const Pass inner = pass.at("layers", static_cast<std::int64_t>(l));
    Var& hidden = reading.next[2 * l].value;
    Var& cell = reading.next[2 * l + 1].value;
    hidden = reset_rows(hidden, zero, segment.reset);
    cell = reset_rows(cell, zero, segment.reset);
    const auto run = [&layer](const Pass& at, std::span<const Var> values) {
      const Layer::Run result = layer.run(at, values[0], values[1], values[2]);
      return std::vector<Var>{result.rows, result.hidden, result.cell};
    };
    std::vector<Var> rows;
    for (std::int64_t begin = 0; begin < length; begin += chunk) {
      const Var part = slice(x, 1, begin, std::min(begin + chunk, length));
      const std::array inputs{part, hidden, cell};
      const std::vector<Var> results =
          replay_tokens_ > 0 ? replay(inner, run, inputs) : run(inner, inputs);
      rows.push_back(results[0]);
      hidden = results[1];
      cell = results[2];
    }
    x = dropout(inner.at("dropout"), rows.size() == 1 ? rows[0] : concat(rows, 1),
                dropout_probability_);
  }
  if (whole) reading.hidden = x;
  return reading;
}

}  // namespace mf
