#pragma once

#include <span>
#include <string>

#include "memformer/replay/recurrence.h"

namespace mf {

/// How a text is read to be scored.
struct EvaluateOptions {
  std::int64_t batch = 8;            ///< rows, each reading its share of the text
  std::int64_t segment_length = 64;  ///< tokens; at most what the model takes
  /// Read at most this much of the text; 0: all. Of documents of one length (images) only whole
  /// ones are read, but at least the start of one.
  std::int64_t max_bytes = 0;
  Prediction prediction = Prediction::next_segment;  ///< what the model is scored on
  bool score_first_segment = false;                  ///< as TextStreamOptions::score_first_segment
  bool reset_every_segment = false;  ///< the same weights without what the memory carries
};

/// What `evaluate` gives.
struct Evaluation {
  double loss_sum = 0.0;    ///< nats
  std::int64_t scored = 0;  ///< bytes that were scored

  /// loss_sum / scored / ln 2. Throws Error where nothing was scored.
  double bits_per_byte() const;
};

/// Cross-entropy of a text under a model, in evaluation mode and without a tape: constant memory
/// for any length. Each row carries its memory through its share of the text.
Evaluation evaluate(const Recurrence& model, std::span<const std::string> documents,
                    const EvaluateOptions& options);

}  // namespace mf
