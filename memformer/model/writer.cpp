#include "memformer/model/writer.h"

#include "autograd/ops.h"
#include "memformer/model/encoder.h"
#include "nn/attention.h"

namespace mf {

MemoryWriter::MemoryWriter(const ModelConfig& c, RngKey rng)
    : query(c.width, c.width, false, rng.at("query"), c.dtype),
      key(c.width, c.width, false, rng.at("key"), c.dtype),
      value(c.width, c.width, false, rng.at("value"), c.dtype),
      heads(c.heads),
      temperature(c.temperature),
      project_value(c.writer_project_value) {
  if (!c.writer_shared_key) slot_key.emplace(c.width, c.width, false, rng.at("slot_key"), c.dtype);
  if (c.writer_output_projection)
    output.emplace(c.width, c.width, false, rng.at("output"), c.dtype);
}

Var MemoryWriter::operator()(const Pass& pass, const Var& memory, const Var& tokens,
                             const Tensor& padding) const {
  const ModuleScope scope(pass);
  // eq. W1 and W2.
  const Var q = split_heads(query(pass.at("query"), memory), heads);
  const Var kappa = split_heads(
      slot_key ? (*slot_key)(pass.at("slot_key"), memory) : key(pass.at("slot_key"), memory),
      heads);
  const Var token_keys = split_heads(key(pass.at("key"), tokens), heads);
  const Var token_values = split_heads(value(pass.at("value"), tokens), heads);
  // eq. W3, W4 and W5: a slot's own key and value are seen by that slot alone.
  AttentionInputs inputs;
  inputs.mask = key_mask(padding);
  inputs.options.temperature = temperature;
  inputs.own_key = kappa;
  inputs.own_value =
      split_heads(project_value ? value(pass.at("slot_value"), memory) : memory, heads);
  const Var merged = merge_heads(attention(q, token_keys, token_values, inputs).out);
  return output ? (*output)(pass.at("output"), merged) : merged;
}

}  // namespace mf
