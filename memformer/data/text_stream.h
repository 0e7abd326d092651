#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memformer/replay/segment.h"

namespace mf {

/// How a TextStream cuts its text.
struct TextStreamOptions {
  std::int64_t batch = 1;            ///< B
  std::int64_t segment_length = 64;  ///< L
  /// What the steps are scored on, and so how they are laid out.
  Prediction prediction = Prediction::next_segment;
  /// Score a document's first segment too, behind a begin token; else it is only read.
  bool score_first_segment = false;
  /// Start a row's share again at its end (training); else the row idles until all have ended.
  bool wrap = true;
};

/// Byte text as steps of B rows and L tokens. The concatenated documents are cut into B equal
/// shares, one a row; a document cut by a share's border counts as two. Where all documents have
/// one length (images) and there is one for every row, the shares are whole documents. Each step
/// continues its row's memory from the step before; `reset` marks each document's first step. A
/// document x_0..x_{N-1} of the segments s_1..s_n gives, under `prediction`:
///   next_segment  the steps t = 1..n-1, which read s_t and are scored on s_{t+1} (eq. S1). With
///                 score_first_segment a step before them reads one begin token, the rest of it
///                 padding, and is scored on s_1.
///   next_token    steps that read x_0..x_{N-2}, L tokens each, with the token behind each as its
///                 target; those in s_1 are not scored. With score_first_segment they read a begin
///                 token and x_0..x_{N-2} instead, and all are scored.
/// Both score the same bytes. Where a document's end leaves places over, they hold begin tokens and
/// the targets kIgnore; in next_segment form that is among the decoder inputs only. Documents
/// without a scored byte are passed over.
///
/// Row and step determine everything, so the stream's position is the number of steps taken.
class TextStream {
 public:
  /// Copies the documents. Throws Error where a share holds no step at all.
  TextStream(std::span<const std::string> documents, const TextStreamOptions& options);

  /// The next step of every row. Without wrap: rows at their end read begin tokens and have no
  /// targets; nullopt once all rows are there.
  std::optional<Segment> next();

  /// All that a new stream over the same documents with the same options needs to continue exactly
  /// here.
  std::vector<std::int64_t> position() const;
  /// Goes on from what `position` gave. Throws Error if it is another stream's.
  void seek(std::span<const std::int64_t> saved);

  /// How often the rows have gone through their shares, on average.
  double epochs() const;
  /// Steps until the longest share is read once: those an evaluation takes.
  std::int64_t steps_per_epoch() const;
  /// Bytes scored when every share is read once.
  std::int64_t scored_bytes_per_epoch() const;

 private:
  /// The part of a document that lies in one row's share.
  struct Piece {
    std::int64_t begin = 0, end = 0;  ///< in text_
    std::int64_t first_step = 0;      ///< in the row
  };
  struct Row {
    std::vector<Piece> pieces;
    std::int64_t steps = 0;
  };
  struct Batch;

  std::int64_t ahead() const { return target_offset(options_.prediction, options_.segment_length); }
  /// Bytes at the start of each document that are not scored.
  std::int64_t unscored() const {
    return options_.score_first_segment ? 0 : options_.segment_length;
  }
  void add_piece(Row& row, std::int64_t begin, std::int64_t end) const;
  void write_step(Batch& batch, std::int64_t row) const;

  TextStreamOptions options_;
  std::string text_;
  std::vector<Row> rows_;
  std::int64_t taken_ = 0;
};

}  // namespace mf
