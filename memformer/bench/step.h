#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memformer/bench/measure.h"
#include "memformer/bench/profile.h"
#include "memformer/model/memformer.h"
#include "memformer/replay/window.h"

namespace mf::bench {

/// The model of tests/benchmarks/torch_peer.py, so that both do the same job: separate token
/// tables, an output layer of its own, biases in attention, slots read as they are, unit-length
/// slots, temperature 1/4.
struct ModelShape {
  std::int64_t width = 256;
  std::int64_t encoder_layers = 2;
  std::int64_t decoder_layers = 2;  ///< 0: the encoder's output is scored
  std::int64_t heads = 8;
  std::int64_t feed_forward = 4;  ///< times the width
  std::int64_t segment = 128;
  std::int64_t slots = 32;
  std::int64_t vocabulary = 256;
  DType dtype = DType::f32;
};
ModelConfig config_of(const ModelShape& shape);

/// How the gradients of a window are computed.
enum class StepMode { bptt, checkpointed, truncated, mrbp };
const char* name_of(StepMode mode);

struct StepOptions {
  ModelShape model;
  Device device = cpu;  ///< where weights, tokens and all work are
  StepMode mode = StepMode::mrbp;
  std::int64_t truncate = 1;  ///< segments in a chunk of `truncated`
  std::int64_t batch = 8;
  std::int64_t segments = 8;
  std::int64_t steps = 5;
  std::int64_t warmup = 1;  ///< steps before those that are timed
  std::uint64_t seed = 0;
  bool profile = false;  ///< note the time of each op in the timed steps
};

struct StepReport {
  StepOptions options;
  int threads = 1;
  std::int64_t parameters = 0;
  std::vector<Times> times;               ///< of each timed step
  std::vector<double> losses;             ///< of each step, nats per target, the warm-up's too
  std::vector<std::int64_t> page_faults;  ///< of each timed step
  /// Of active bytes of the device, weights and everything else included.
  std::int64_t peak_bytes = 0;
  std::int64_t standing_bytes = 0;  ///< active between the steps: weights, moments, tokens
  double start_resident_mb = 0.0, peak_resident_mb = 0.0;  ///< units of 2^20 bytes
  std::vector<ProfileRow> profile;  ///< all timed steps together, if asked for
  /// Of the FMA loop, measured behind each step, on as many threads; NaN but on the cpu.
  Spread peak_gflops;

  /// Median of the wall times.
  double seconds() const;
  /// The same tokens are counted once, whatever is computed again.
  double tokens() const;
  /// FLOP of the matrix products of one step: 2 per multiply-add of `multiply_adds`, times batch
  /// and segments, times 3 for forward and backward. What is computed again is not counted.
  double flops() const;
  /// Share of the FMA peak: flops() / seconds() / peak.
  double flop_use() const;
};

/// A window of random tokens, each scored on the next one, as the peer has it: row 0.. of one long
/// text; M_0 is built in the first segment.
std::vector<Segment> language_window(const ModelConfig& config, std::int64_t batch,
                                     std::int64_t segments, RngKey key);

/// Whole training steps: zero_grad, forward, backward, Adam, on the same window each time. Throws
/// Error on an impossible configuration.
StepReport bench_step(const StepOptions& options);
/// One JSON object with the fields of torch_peer.py, and more.
std::string to_json(const StepReport& report);

}  // namespace mf::bench
