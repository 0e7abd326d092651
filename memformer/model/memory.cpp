#include "memformer/model/memory.h"

#include <cmath>

#include "autograd/ops.h"
#include "memformer/replay/state.h"

namespace mf {

Memory::Memory(const ModelConfig& config, RngKey key)
    : forgetting(normal_parameter(
          {config.slots, config.width},
          config.forgetting_initial_norm / std::sqrt(static_cast<double>(config.width)),
          key.at("forgetting"), config.dtype)),
      norm(config.memory_norm),
      radius(config.radius()),
      epsilon(config.memory_epsilon),
      norm_epsilon(config.norm_epsilon),
      adds_forgetting(config.forgetting) {}

Var Memory::normalise(const Var& x) const {
  switch (norm) {
    case MemoryNorm::l2:
      return normalize(x, radius, epsilon);
    case MemoryNorm::layer_norm: {
      const Device device = x.device();
      const Var gain = constant(full({x.size(-1)}, 1.0, x.dtype(), device));
      const Var bias = constant(zeros({x.size(-1)}, x.dtype(), device));
      return layer_norm(x, gain, bias, norm_epsilon);
    }
    case MemoryNorm::none:
      break;
  }
  return x;
}

// eq. F3.
Var Memory::initial(const Pass& pass, std::int64_t batch) const {
  const ModuleScope scope(pass);
  const Var slots = normalise(pass.tape.param(forgetting));
  return expand(slots, {batch, slots.size(0), slots.size(1)});
}

// eq. F1 and F2.
Var Memory::advance(const Pass& pass, const Var& written) const {
  const ModuleScope scope(pass);
  return normalise(adds_forgetting ? add(written, pass.tape.param(forgetting)) : written);
}

// eq. F5.
Var Memory::start(const Pass& pass, const Var& memory, const Tensor& reset) const {
  if (!reset.defined()) return memory;
  const ModuleScope scope(pass);
  return reset_rows(memory, initial(pass, memory.size(0)), reset);
}

}  // namespace mf
