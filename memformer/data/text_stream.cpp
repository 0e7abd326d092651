#include "memformer/data/text_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "memformer/data/bytes.h"
#include "memformer/data/corpus.h"

namespace mf {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 30;

}  // namespace

/// Host values of one step, filled for rows that idle.
struct TextStream::Batch {
  Batch(std::int64_t rows, std::int64_t columns, Prediction prediction)
      : tokens(static_cast<std::size_t>(rows * columns), kBeginToken),
        padding(tokens.size(), 1),
        decoder_inputs(prediction == Prediction::next_segment ? tokens.size() : 0, kBeginToken),
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
  if (!decoder_inputs.empty()) segment.decoder_inputs = from_host(decoder_inputs, shape);
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
  const std::int64_t length = common_length(documents);
  const std::int64_t unit = length > 0 && bytes / length >= B ? length : 1;  // never cut by a share

  rows_.resize(static_cast<std::size_t>(B));
  std::size_t document = 0;
  std::int64_t begin = 0;  // of `document` in text_
  for (std::int64_t row = 0; row < B; ++row) {
    const std::int64_t share_begin = bytes / unit * row / B * unit;
    const std::int64_t share_end = bytes / unit * (row + 1) / B * unit;
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
  if (end - begin <= unscored()) return;
  const std::int64_t targets = end - begin - (options_.score_first_segment ? 0 : ahead());
  row.pieces.push_back({begin, end, row.steps});
  row.steps += ceil_div(targets, options_.segment_length);
}

void TextStream::write_step(Batch& batch, std::int64_t index) const {
  const Row& row = rows_[static_cast<std::size_t>(index)];
  if (!options_.wrap && taken_ >= row.steps) return;
  const std::int64_t step = taken_ % row.steps;
  const Piece& piece =
      *std::prev(std::ranges::upper_bound(row.pieces, step, {}, &Piece::first_step));
  const std::int64_t step_in_piece = step - piece.first_step;

  const std::int64_t L = options_.segment_length;
  const std::int64_t read =
      piece.begin + step_in_piece * L - (options_.score_first_segment ? ahead() : 0);
  const std::int64_t first_scored = piece.begin + unscored();
  const auto token = [&](std::int64_t at) {
    return byte_token(text_[static_cast<std::size_t>(at)]);
  };

  const bool next_segment = options_.prediction == Prediction::next_segment;
  for (std::int64_t n = 0; n < L; ++n) {
    const auto out = static_cast<std::size_t>(index * L + n);
    const std::int64_t at = read + n, target = at + ahead();
    // The last byte is only a target.
    if (at >= piece.begin && at + 1 < piece.end) batch.tokens[out] = token(at);
    if (next_segment && read < piece.begin) batch.padding[out] = n == 0;
    if (target < first_scored || target >= piece.end) continue;
    batch.targets[out] = token(target);
    if (next_segment && n > 0) batch.decoder_inputs[out] = token(target - 1);
  }
  batch.reset[static_cast<std::size_t>(index)] = step_in_piece == 0;
}

std::optional<Segment> TextStream::next() {
  if (!options_.wrap && taken_ >= steps_per_epoch()) return std::nullopt;
  Batch batch(options_.batch, options_.segment_length, options_.prediction);
  for (std::int64_t row = 0; row < options_.batch; ++row) write_step(batch, row);
  ++taken_;
  return batch.segment();
}

std::vector<std::int64_t> TextStream::position() const {
  // All but the first only tell whether a position belongs to this stream. The form is one number,
  // so that positions from before there were two kinds of prediction still fit.
  const std::int64_t form = 2 * static_cast<std::int64_t>(options_.prediction) +
                            static_cast<std::int64_t>(options_.score_first_segment);
  return {taken_,
          options_.batch,
          options_.segment_length,
          form,
          static_cast<std::int64_t>(text_.size()),
          scored_bytes_per_epoch()};
}

void TextStream::seek(std::span<const std::int64_t> saved) {
  std::vector<std::int64_t> here = position();
  const bool same_stream = saved.size() == here.size() && saved[0] >= 0 &&
                           std::ranges::equal(saved.subspan(1), std::span(here).subspan(1));
  check(same_stream,
        "text_stream: seek: the position is another stream's; steps, batch, segment length, what "
        "is scored, bytes, scored bytes are [{}], here [{}]; give the same text and options",
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
  std::int64_t sum = 0;
  for (const Row& row : rows_)
    for (const Piece& piece : row.pieces) sum += piece.end - piece.begin - unscored();
  return sum;
}

}  // namespace mf
