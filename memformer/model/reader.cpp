#include "memformer/model/reader.h"

namespace mf {

MemoryReader::MemoryReader(const ModelConfig& c, RngKey key)
    : norm(c.width, c.norm_epsilon, c.dtype),
      attention(c.width, c.heads, c.attention_bias, c.attention_dropout, key.at("memory_attention"),
                c.dtype),
      read_norm(c.memory_read_norm) {
  if (read_norm == ReadNorm::own) slot_norm.emplace(c.width, c.norm_epsilon, c.dtype);
}

Var MemoryReader::operator()(const Pass& pass, const Var& tokens, const Var& memory,
                             const Var& residual) const {
  Var slots = memory;  // eq. R1: what keys and values are made of
  if (read_norm == ReadNorm::shared) slots = norm(pass.at("memory_norm"), memory);
  if (read_norm == ReadNorm::own) slots = (*slot_norm)(pass.at("slot_norm"), memory);
  return attention(pass.at("memory_attention"), norm(pass.at("memory_norm"), tokens), slots, {},
                   residual);
}

}  // namespace mf
