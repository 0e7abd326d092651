#include "memformer/model/writer.h"

#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "nn/attention.h"

namespace mf {
namespace {

/// u8 [B, 1, 1, L], 1 where a token is padding.
Tensor padded_tokens(const Tensor& padding) {
  std::vector<std::uint8_t> padded = padding.to_vector<std::uint8_t>();
  for (std::uint8_t& token : padded) token = token == 0 ? 1 : 0;
  return from_host(padded, {padding.size(0), 1, 1, padding.size(1)}, padding.device());
}

}  // namespace

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
  const Var q = split_heads(query(pass.at("query"), memory), heads);
  const Var kappa = split_heads(
      slot_key ? (*slot_key)(pass.at("slot_key"), memory) : key(pass.at("slot_key"), memory),
      heads);
  const Var token_keys = split_heads(key(pass.at("key"), tokens), heads);
  const Var token_values = split_heads(value(pass.at("value"), tokens), heads);
  const Var own_value =
      split_heads(project_value ? value(pass.at("slot_value"), memory) : memory, heads);

  const double factor = 1.0 / (std::sqrt(static_cast<double>(q.size(3))) * temperature);
  const Var own_score = sum(mul(q, kappa), {-1}, true);  // [B, h, slots, 1]
  Var token_scores = matmul(q, transpose(token_keys));   // [B, h, slots, L]
  if (padding.defined())
    token_scores =
        masked_fill(token_scores, padded_tokens(padding), -std::numeric_limits<double>::infinity());
  const Var weights = softmax(scale(concat({own_score, token_scores}, -1), factor));
  const Var written = add(mul(slice(weights, -1, 0, 1), own_value),
                          matmul(slice(weights, -1, 1, weights.size(-1)), token_values));
  const Var merged = merge_heads(written);
  return output ? (*output)(pass.at("output"), merged) : merged;
}

}  // namespace mf
