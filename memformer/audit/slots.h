#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memformer/model/memformer.h"

namespace mf {

/// What the memory of one row did while one segment was read.
struct SlotsAtSegment {
  std::vector<std::int32_t> tokens;  ///< what was read
  /// a of eq. W4, mean over the heads: f64 [slots, 1 + L], the slot itself first, then the tokens.
  Tensor write;
  /// Weights of eq. R2, mean over encoder layers and heads: f64 [L, slots].
  Tensor read;
  std::vector<double> written_norm;  ///< |m'_i|, before normalisation
  std::vector<double> turned;        ///< angle between M_t and M_{t+1} of each slot, in degrees
  std::vector<double> from_start;    ///< angle between M_{t+1} and M_0 of each slot, in degrees
  /// Cosine between two slots of M_{t+1}, mean over all pairs; 1: the slots are copies of each
  /// other. NaN with a single slot.
  double between_slots = 0.0;
  /// max |x - y| / max |y| of M_{t+1}, made here from `write`'s weights, against the model's own.
  double write_error = 0.0;
  /// The same of what each layer's reader gives, made from `read`'s weights; the largest.
  double read_error = 0.0;
};

/// The weight that each slot gives to itself: the first column of `write`.
std::vector<double> own_weights(const SlotsAtSegment& segment);

/// The kinds of slots that the paper tells apart (v2, section 4.3.1), by the weight a slot gives to
/// itself; the limits are ours.
inline constexpr double kKeeperFrom = 0.75;  ///< keeps what it holds
inline constexpr double kWriterUpTo = 0.25;  ///< takes what the tokens bring; between: mixers

/// How many slots are of each kind.
struct SlotKinds {
  std::int64_t keepers = 0;  ///< weight on itself from kKeeperFrom
  std::int64_t mixers = 0;   ///< between
  std::int64_t writers = 0;  ///< weight on itself up to kWriterUpTo
};
/// The kinds at one segment.
SlotKinds kinds_of(const SlotsAtSegment& segment);

/// What `audit_slots` found.
struct SlotsReport {
  std::vector<SlotsAtSegment> segments;  ///< in the order they were read
  std::vector<double> forgetting_norms;  ///< |v_i|
  double radius = 1.0;                   ///< length of a slot; |v_i| is to be seen beside it
  double tolerance = 0.0;                ///< what `write_error` and `read_error` may be

  /// The weights shown are those that the model used.
  bool reproduced() const;
};

/// A mistake made on purpose, to see that the audit finds it.
enum class SlotsFault {
  none,            ///< as it is
  no_temperature,  ///< the writer's scores are not divided by tau (nor by a wrong one, if tau is 1)
};

/// Reads the segments of one row in evaluation mode and shows what writes and reads attended to.
/// The fused attention keeps no weights, so they are made again here from queries and keys, one
/// plain op after the other, and M_{t+1} and the readers' results from them. Throws Error if the
/// model has no memory, or a segment has several rows or padding.
SlotsReport audit_slots(const Memformer& model, const std::vector<Segment>& segments,
                        SlotsFault fault = SlotsFault::none);

}  // namespace mf
