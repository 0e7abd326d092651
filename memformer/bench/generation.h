#pragma once

#include <cstdint>
#include <string>

#include "memformer/bench/measure.h"
#include "memformer/bench/step.h"

namespace mf::bench {

struct GenerationOptions {
  ModelShape model;
  Device device = cpu;
  std::int64_t tokens = 512;
  std::int64_t prompt = 0;  ///< bytes; 0: one segment
  std::uint64_t seed = 0;
};

struct GenerationReport {
  GenerationOptions options;
  int threads = 1;
  Times times;                    ///< of all tokens
  double prompt_seconds = 0.0;    ///< until the first token can be drawn
  Spread token_seconds;           ///< of single tokens; one that begins a segment costs an encoding
  double peak_resident_mb = 0.0;  ///< units of 2^20 bytes
  std::int64_t peak_bytes = 0;    ///< of active bytes of the device, weights included

  double tokens_per_second() const;
};

/// Generates bytes of one row with fresh weights, as `memformer generate` does.
GenerationReport bench_generation(const GenerationOptions& options);
/// One JSON object.
std::string to_json(const GenerationReport& report);

}  // namespace mf::bench
