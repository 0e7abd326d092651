#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memformer/bench/step.h"

namespace mf::bench {

struct GrowthOptions {
  ModelShape model{.width = 64,
                   .encoder_layers = 1,
                   .decoder_layers = 1,
                   .heads = 4,
                   .feed_forward = 4,
                   .segment = 64,
                   .slots = 8};
  Device device = cpu;
  StepMode mode = StepMode::mrbp;
  std::int64_t smallest = 1 << 7;  ///< tokens
  std::int64_t largest = 1 << 16;
  double seconds = 20.0;  ///< no point is begun that may take longer
};

/// One step of a window of `tokens` tokens of one row.
struct GrowthPoint {
  std::int64_t tokens = 0, segments = 0, segment = 0;
  double seconds = 0.0;
  std::int64_t peak_bytes = 0;  ///< of the device, above weights, moments and tokens
};

struct GrowthReport {
  GrowthOptions options;
  int threads = 1;
  std::vector<GrowthPoint> by_segments;  ///< more segments of model.segment tokens
  std::vector<GrowthPoint> by_length;    ///< two segments, of more tokens
};

/// How time and memory of a training step grow with the text, doubling by doubling, until
/// `largest` or until the next point might take longer than `seconds` (a doubling is taken to cost
/// four times as much).
GrowthReport bench_growth(const GrowthOptions& options);
/// One JSON object.
std::string to_json(const GrowthReport& report);

}  // namespace mf::bench
