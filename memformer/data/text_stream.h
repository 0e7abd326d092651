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
  /// Precede every document with a step that reads one begin token and is scored on the document's
  /// first segment; else a document's first segment is only read.
  bool score_first_segment = false;
  /// Start a row's share again at its end (training); else the row idles until all have ended.
  bool wrap = true;
};

/// Byte text as steps of B rows and L tokens. The concatenated documents are cut into B equal
/// shares, one a row; a document cut by a share's border counts as two. A document of n segments
/// s_1..s_n gives the steps t = 1..n-1, which read s_t and are scored on s_{t+1}, so each step
/// continues its row's memory from the step before; `reset` marks each document's first step. Only
/// the last segment of a document may be shorter than L, and it is never read, only a target: there
/// kIgnore fills the targets up and begin tokens the decoder inputs. Documents without a step are
/// passed over. Source: eq. S1.
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

  void add_piece(Row& row, std::int64_t begin, std::int64_t end) const;
  void write_step(Batch& batch, std::int64_t row) const;

  TextStreamOptions options_;
  std::string text_;
  std::vector<Row> rows_;
  std::int64_t taken_ = 0;
};

}  // namespace mf
