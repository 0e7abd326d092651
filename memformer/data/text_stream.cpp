#include "memformer/data/text_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "memformer/data/bytes.h"

namespace mf {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 30;

}  // namespace

/// Host values of one step, filled for rows that idle.
struct TextStream::Batch {
  Batch(std::int64_t rows, std::int64_t columns)
      : tokens(static_cast<std::size_t>(rows * columns), kBeginToken),
        padding(tokens.size(), 1),
        decoder_inputs(tokens.size(), kBeginToken),
        targets(tokens.size(), kIgnore),
        reset(static_cast<std::size_t>(rows), 0) {}

  Segment segment() const;

  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> padding;
  std::vector<std::int32_t> decoder_inputs;
  std::vector<std::int32_t> targets;
  std::vector<std::uint8_t> reset;
};

Segment TextStream::Batch::segment() const {
  const auto rows = static_cast<std::int64_t>(reset.size());
  const Shape shape{rows, static_cast<std::int64_t>(tokens.size()) / rows};
  Segment segment;
  segment.tokens = from_host(tokens, shape);
  if (std::ranges::count(padding, 0) > 0) segment.padding = from_host(padding, shape);
  segment.decoder_inputs = from_host(decoder_inputs, shape);
  segment.targets = from_host(targets, shape);
  if (std::ranges::count(reset, 1) > 0) segment.reset = from_host(reset, Shape{rows});
  segment.scored = std::ranges::count_if(targets, [](std::int32_t t) { return t != kIgnore; });
  return segment;
}

TextStream::TextStream(std::span<const std::string> documents, const TextStreamOptions& options)
    : options_(options) {
  const std::int64_t B = options.batch, L = options.segment_length;
  check(B > 0 && L > 0 && L <= kMostTokens / B,
        "text_stream: batch and segment length must be positive and a step hold at most {} tokens; "
        "batch {}, segment length {}; choose others",
        kMostTokens, B, L);
  for (const std::string& document : documents) text_ += document;
  const auto bytes = static_cast<std::int64_t>(text_.size());

  rows_.resize(static_cast<std::size_t>(B));
  std::size_t document = 0;
  std::int64_t begin = 0;  // of `document` in text_
  for (std::int64_t row = 0; row < B; ++row) {
    const std::int64_t share_begin = bytes * row / B, share_end = bytes * (row + 1) / B;
    while (document < documents.size()) {
      const std::int64_t end = begin + static_cast<std::int64_t>(documents[document].size());
      add_piece(rows_[static_cast<std::size_t>(row)], std::max(begin, share_begin),
                std::min(end, share_end));
      if (end > share_end) break;  // the rest is the next row's
      begin = end;
      ++document;
    }
    check(
        rows_[static_cast<std::size_t>(row)].steps > 0,
        "text_stream: too little text; row {} has no document with {}; segment length {}, "
        "batch {}, {} bytes in {} documents; give more text, or a smaller batch or segment length",
        row, options.score_first_segment ? "a byte" : "two segments", L, B, bytes,
        documents.size());
  }
}

void TextStream::add_piece(Row& row, std::int64_t begin, std::int64_t end) const {
  const std::int64_t L = options_.segment_length;
  const std::int64_t segments = ceil_div(std::max(end - begin, std::int64_t{0}), L);
  const std::int64_t steps = options_.score_first_segment ? segments : segments - 1;
  if (steps <= 0) return;
  row.pieces.push_back({begin, end, row.steps});
  row.steps += steps;
}

void TextStream::write_step(Batch& batch, std::int64_t index) const {
  const Row& row = rows_[static_cast<std::size_t>(index)];
  if (!options_.wrap && taken_ >= row.steps) return;
  const std::int64_t step = taken_ % row.steps;
  const Piece& piece =
      *std::prev(std::ranges::upper_bound(row.pieces, step, {}, &Piece::first_step));
  const std::int64_t step_in_piece = step - piece.first_step;

  const std::int64_t L = options_.segment_length;
  const std::int64_t read = piece.begin + (step_in_piece - options_.score_first_segment) * L;
  const std::int64_t scored = read + L;
  const std::int64_t scored_count = std::min(L, piece.end - scored);
  const auto token = [&](std::int64_t at) {
    return byte_token(text_[static_cast<std::size_t>(at)]);
  };

  const std::int64_t out = index * L;
  const auto at = [&](auto& values, std::int64_t n) -> auto& {
    return values[static_cast<std::size_t>(out + n)];
  };
  const bool reads_text = read >= piece.begin;  // else the step before the document's first segment
  for (std::int64_t n = 0; n < L; ++n) {
    if (reads_text) {
      at(batch.tokens, n) = token(read + n);
    } else {
      at(batch.padding, n) = n == 0;
    }
  }
  for (std::int64_t n = 0; n < scored_count; ++n) {
    at(batch.targets, n) = token(scored + n);
    if (n > 0) at(batch.decoder_inputs, n) = token(scored + n - 1);
  }
  batch.reset[static_cast<std::size_t>(index)] = step_in_piece == 0;
}

std::optional<Segment> TextStream::next() {
  if (!options_.wrap && taken_ >= steps_per_epoch()) return std::nullopt;
  Batch batch(options_.batch, options_.segment_length);
  for (std::int64_t row = 0; row < options_.batch; ++row) write_step(batch, row);
  ++taken_;
  return batch.segment();
}

std::vector<std::int64_t> TextStream::position() const {
  // All but the first only tell whether a position belongs to this stream.
  return {taken_,
          options_.batch,
          options_.segment_length,
          options_.score_first_segment,
          static_cast<std::int64_t>(text_.size()),
          scored_bytes_per_epoch()};
}

void TextStream::seek(std::span<const std::int64_t> saved) {
  std::vector<std::int64_t> here = position();
  const bool same_stream = saved.size() == here.size() && saved[0] >= 0 &&
                           std::ranges::equal(saved.subspan(1), std::span(here).subspan(1));
  check(same_stream,
        "text_stream: seek: the position is another stream's; steps, batch, segment length, first "
        "segment scored, bytes, scored bytes are [{}], here [{}]; give the same text and options",
        fmt::join(saved, ", "), fmt::join(here, ", "));
  taken_ = saved[0];
}

double TextStream::epochs() const {
  double sum = 0;
  for (const Row& row : rows_) {
    const std::int64_t taken = options_.wrap ? taken_ : std::min(taken_, row.steps);
    sum += static_cast<double>(taken) / static_cast<double>(row.steps);
  }
  return sum / static_cast<double>(rows_.size());
}

std::int64_t TextStream::steps_per_epoch() const {
  return std::ranges::max(rows_, {}, &Row::steps).steps;
}

std::int64_t TextStream::scored_bytes_per_epoch() const {
  const std::int64_t unscored = options_.score_first_segment ? 0 : options_.segment_length;
  std::int64_t sum = 0;
  for (const Row& row : rows_)
    for (const Piece& piece : row.pieces) sum += piece.end - piece.begin - unscored;
  return sum;
}

}  // namespace mf
