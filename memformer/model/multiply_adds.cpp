#include "memformer/model/multiply_adds.h"

namespace mf {

// eq. C4.
double MultiplyAdds::replay_ratio() const {
  return 1.0 + static_cast<double>(memory_path) / (3.0 * static_cast<double>(total()));
}

// eq. C5.
MultiplyAdds multiply_adds(const ModelConfig& c) {
  const std::int64_t L = c.segment, d = c.width, k = c.slots;
  const std::int64_t relative =
      c.positions == Positions::simplified_relative ? 2 * L * (2 * c.segment - 1) * d : 0;
  const std::int64_t self_attention = 4 * L * d * d + 2 * L * L * d + relative;
  const std::int64_t cross_attention = 4 * L * d * d + 2 * L * L * d;
  const std::int64_t feed_forward = 2 * L * d * c.feed_forward;
  const std::int64_t memory_read = k > 0 ? 2 * (L + k) * d * d + 2 * L * k * d : 0;
  const std::int64_t optional_products =
      (c.writer_project_value ? 1 : 0) + (c.writer_output_projection ? 1 : 0);
  const std::int64_t memory_write =
      k > 0 ? 2 * (L + k) * d * d + optional_products * k * d * d + 2 * k * (L + 1) * d : 0;
  const std::int64_t head = L * d * c.vocabulary;

  MultiplyAdds counts;
  counts.memory_path =
      c.encoder_layers * (self_attention + memory_read + feed_forward) + memory_write;
  counts.prediction = head;
  if (c.architecture == Architecture::encoder_decoder)
    counts.prediction += c.decoder_layers * (self_attention + cross_attention + feed_forward);
  return counts;
}

}  // namespace mf
