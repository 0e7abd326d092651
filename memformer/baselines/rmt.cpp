#include "memformer/baselines/rmt.h"

#include "autograd/ops.h"
#include "nn/parameters.h"

namespace mf {

void validate(const RmtConfig& c) {
  validate(static_cast<const RelativeStackConfig&>(c));
  check(c.memory >= 0 && c.memory <= 1 << 16,
        "configuration: model.memory is {}; it must lie in 0..{}", c.memory, 1 << 16);
}

MultiplyAdds multiply_adds(const RmtConfig& c) {
  const std::int64_t rows = c.segment + (c.write ? 2 : 1) * c.memory;
  const std::int64_t layers = c.layers * layer_multiply_adds(c, rows, rows);
  const std::int64_t head = head_multiply_adds(c);
  if (!c.write || c.memory == 0) return {0, layers + head};
  return {layers, head};
}

RecurrentMemoryTransformer::RecurrentMemoryTransformer(const RmtConfig& config, RngKey key)
    : TokenModel((validate(config), config), key),
      stack_(config, config.segment + 2 * config.memory, key),
      memory_(config.memory),
      write_(config.write) {
  if (memory_ > 0)
    initial_memory_ = normal_parameter({memory_, config.width}, config.token_deviation(),
                                       key.at("initial_memory"), config.dtype);
  mf::parameters(*this);  // gives each parameter its path as its name
}

std::vector<Parameter> RecurrentMemoryTransformer::parameters() const {
  return mf::parameters(*this);
}

State RecurrentMemoryTransformer::initial_state(std::int64_t batch) const {
  if (memory_ == 0 || !write_) return {};
  const Tensor& initial = initial_memory_.value();
  return {{"memory", initial.expand({batch, memory_, initial.size(1)}), true, {}}};
}

namespace {

/// u8 [T, T] over rows [read; tokens; written].
Tensor visible_rows(std::int64_t read, std::int64_t tokens, std::int64_t written, Device device) {
  const std::int64_t rows = read + tokens + written;
  std::vector<std::uint8_t> visible;
  visible.reserve(static_cast<std::size_t>(rows * rows));
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < rows; ++j)
      visible.push_back(j < read || i >= read + tokens || (i >= read && j <= i) ? 1 : 0);
  return from_host(visible, {rows, rows}, device);
}

}  // namespace

TokenModel::Reading RecurrentMemoryTransformer::read(const Pass& pass, const Segment& segment,
                                                     const LiveState& state, bool whole) const {
  const std::int64_t written = write_ ? memory_ : 0;
  check(state.size() == (written > 0 ? 1U : 0U),
        "rmt: the state must be one tensor, 'memory', if memory tokens are written; got {} tensors",
        state.size());
  Reading reading;
  reading.next = state;  // keeps names and boundary rules
  const std::int64_t length = segment.tokens.size(1);
  Var memory;
  if (memory_ > 0) {
    const Var initial = pass.tape.param(initial_memory_);
    memory = write_ ? reset_rows(state[0].value, initial, segment.reset)
                    : expand(initial, {segment.tokens.size(0), memory_, initial.size(1)});
  }
  if (!whole && written == 0) return reading;
  Var x = embed(pass, segment);
  if (memory_ > 0) x = write_ ? concat({memory, x, memory}, 1) : concat({memory, x}, 1);
  const Tensor visible = visible_rows(memory_, length, written, x.device());
  const RelativeScope scope = stack_.scope(pass, x.size(1), 0, visible, false);
  const Var none = constant(zeros({x.size(0), 0, x.size(2)}, x.dtype(), x.device()));
  for (std::size_t l = 0; l < stack_.layers.size(); ++l)
    x = stack_.layers[l](pass.at("layers", static_cast<std::int64_t>(l)), x, none, scope);
  x = stack_.finish(pass, x);
  if (written > 0)
    reading.next[0].value = concat({slice(x, 1, memory_ + length, memory_ + length + written)}, 1);
  if (whole) reading.hidden = slice(x, 1, memory_, memory_ + length);
  return reading;
}

}  // namespace mf
