#include "memformer/data/text_stream.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "memformer/data/bytes.h"
#include "tensor/random.h"

using doctest::Contains;
using mf::Prediction;
using mf::Segment;
using mf::Tensor;
using mf::TextStream;
using mf::TextStreamOptions;

namespace {

using Texts = std::vector<std::string>;
using Tokens = std::vector<std::int32_t>;

/// Every other document has at most 12 bytes; some are empty.
Texts random_documents(mf::RngKey key, std::uint64_t count, std::uint64_t longest) {
  Texts documents;
  for (std::uint64_t d = 0; d < count; ++d) {
    documents.emplace_back();
    const std::uint64_t length = key.at("length").below(d % 2 == 1 ? 13 : longest + 1, d);
    for (std::uint64_t i = 0; i < length; ++i)
      documents.back() += static_cast<char>(key.at(d).below(256, i));
  }
  return documents;
}

Tokens row_of(const Tensor& tensor, std::int64_t row) {
  return tensor.slice(0, row, row + 1).contiguous().to_vector<std::int32_t>();
}

bool resets(const Segment& segment, std::int64_t row) {
  return segment.reset.defined() && segment.reset.to_vector<std::uint8_t>()[std::size_t(row)] == 1;
}

bool same(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && mf::first_difference(a, b) < 0;
}

bool same(const Segment& a, const Segment& b) {
  return same(a.tokens, b.tokens) && same(a.padding, b.padding) &&
         same(a.decoder_inputs, b.decoder_inputs) && same(a.targets, b.targets) &&
         same(a.reset, b.reset) && a.scored == b.scored;
}

/// The documents cut at the borders of B equal shares, without those that give no step.
Texts expected_pieces(const Texts& documents, const TextStreamOptions& options) {
  std::string all;
  std::set<std::size_t> cuts;
  for (const std::string& document : documents) cuts.insert((all += document).size());
  for (std::int64_t b = 1; b <= options.batch; ++b)
    cuts.insert(all.size() * std::size_t(b) / std::size_t(options.batch));
  Texts pieces;
  std::size_t begin = 0;
  const std::size_t least =
      options.score_first_segment ? 1 : std::size_t(options.segment_length) + 1;
  for (const std::size_t cut : cuts) {
    if (cut - begin >= least) pieces.push_back(all.substr(begin, cut - begin));
    begin = cut;
  }
  return pieces;
}

/// Puts one row's pieces together from what is read and what is scored, step by step, and checks
/// that each step continues where the last one ended.
void read_step(const Segment& segment, std::int64_t row, const TextStreamOptions& options,
               Texts& pieces) {
  const Tokens tokens = row_of(segment.tokens, row), targets = row_of(segment.targets, row);
  const Tokens inputs = row_of(segment.decoder_inputs, row);
  Tokens scored = targets;
  scored.erase(std::ranges::find(scored, mf::kIgnore), scored.end());
  if (scored.empty()) {
    CHECK(tokens == Tokens(tokens.size(), mf::kBeginToken));  // idle
    CHECK(!resets(segment, row));
    return;
  }
  std::vector<std::uint8_t> real(tokens.size(), 1);
  if (resets(segment, row)) pieces.emplace_back();
  REQUIRE(!pieces.empty());
  std::string& piece = pieces.back();
  if (resets(segment, row) && options.score_first_segment) {
    CHECK(tokens == Tokens(tokens.size(), mf::kBeginToken));
    std::fill(real.begin() + 1, real.end(), std::uint8_t{0});
  } else {
    const std::string read = mf::decode_bytes(tokens);
    CHECK(read.size() == tokens.size());
    if (resets(segment, row)) piece = read;
    CHECK(piece.ends_with(read));
  }
  if (segment.padding.defined()) {
    const Tensor mine = segment.padding.slice(0, row, row + 1).contiguous();
    CHECK(mine.to_vector<std::uint8_t>() == real);
  } else {
    CHECK(std::ranges::count(real, 0) == 0);
  }
  Tokens shifted = {mf::kBeginToken};
  shifted.insert(shifted.end(), scored.begin(), scored.end() - 1);
  shifted.resize(inputs.size(), mf::kBeginToken);
  CHECK(inputs == shifted);
  CHECK(std::ranges::count(targets, mf::kIgnore) ==
        static_cast<std::int64_t>(targets.size() - scored.size()));
  piece += mf::decode_bytes(scored);
}

/// Bytes of a document by their place in it.
using Places = std::map<std::int64_t, std::int32_t>;

/// The scored bytes of each document, row after row, in one epoch of a stream that does not wrap.
std::vector<Places> scored_places(TextStream stream, const TextStreamOptions& options) {
  const std::int64_t L = options.segment_length;
  const std::int64_t ahead = mf::target_offset(options.prediction, L);
  std::vector<std::vector<Places>> rows(std::size_t(options.batch));
  std::vector<std::int64_t> read(rows.size());
  std::int64_t scored = 0;
  while (const std::optional<Segment> segment = stream.next()) {
    scored += segment->scored;
    for (std::size_t row = 0; row < rows.size(); ++row) {
      if (resets(*segment, std::int64_t(row))) {
        rows[row].emplace_back();
        read[row] = options.score_first_segment ? -ahead : 0;
      }
      const Tokens targets = row_of(segment->targets, std::int64_t(row));
      for (std::int64_t n = 0; n < L; ++n) {
        const std::int32_t target = targets[std::size_t(n)];
        if (target != mf::kIgnore) rows[row].back()[read[row] + n + ahead] = target;
      }
      read[row] += L;
    }
  }
  CHECK(scored == stream.scored_bytes_per_epoch());
  std::vector<Places> places;
  for (const std::vector<Places>& row : rows) places.insert(places.end(), row.begin(), row.end());
  return places;
}

/// How many documents start in each row in one epoch of a stream that does not wrap.
std::vector<int> documents_of_rows(TextStream stream, std::int64_t batch) {
  std::vector<int> documents(std::size_t(batch), 0);
  while (const std::optional<Segment> segment = stream.next())
    for (std::int64_t row = 0; row < batch; ++row)
      documents[std::size_t(row)] += resets(*segment, row);
  return documents;
}

constexpr Prediction kPredictions[] = {Prediction::next_segment, Prediction::next_token};

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("text_stream: one epoch reads every document exactly, and resets where each starts") {
  for (std::uint64_t trial = 0; trial < 60; ++trial) {
    const mf::RngKey key = mf::RngKey{7}.at(trial);
    const TextStreamOptions options{.batch = 1 + std::int64_t(key.below(4, 0)),
                                    .segment_length = 1 + std::int64_t(key.below(9, 1)),
                                    .score_first_segment = trial % 2 == 1,
                                    .wrap = false};
    const Texts documents = random_documents(key, 10 + key.below(12, 2), 200);
    CAPTURE(trial);
    TextStream stream(documents, options);
    std::vector<Texts> rows(static_cast<std::size_t>(options.batch));
    std::int64_t steps = 0, scored = 0;
    while (const std::optional<Segment> segment = stream.next()) {
      ++steps;
      scored += segment->scored;
      for (std::int64_t row = 0; row < options.batch; ++row)
        read_step(*segment, row, options, rows[std::size_t(row)]);
    }
    Texts pieces;
    for (const Texts& row : rows) pieces.insert(pieces.end(), row.begin(), row.end());
    CHECK(pieces == expected_pieces(documents, options));
    CHECK(steps == stream.steps_per_epoch());
    CHECK(scored == stream.scored_bytes_per_epoch());
    CHECK(stream.epochs() == 1);
    CHECK(!stream.next());
  }
}

TEST_CASE("text_stream: next_token scores the bytes of next_segment, each behind its token") {
  for (std::uint64_t trial = 0; trial < 60; ++trial) {
    CAPTURE(trial);
    const mf::RngKey key = mf::RngKey{9}.at(trial);
    TextStreamOptions options{.batch = 1 + std::int64_t(key.below(4, 0)),
                              .segment_length = 1 + std::int64_t(key.below(9, 1)),
                              .score_first_segment = trial % 2 == 1,
                              .wrap = false};
    const Texts documents = random_documents(key, 10 + key.below(12, 2), 200);
    std::vector<Places> expected;
    for (const std::string& piece : expected_pieces(documents, options)) {
      expected.emplace_back();
      const Tokens tokens = mf::encode_bytes(piece);
      for (std::size_t i = options.score_first_segment ? 0 : std::size_t(options.segment_length);
           i < tokens.size(); ++i)
        expected.back()[std::int64_t(i)] = tokens[i];
    }
    CHECK(scored_places(TextStream(documents, options), options) == expected);

    options.prediction = Prediction::next_token;
    TextStream stream(documents, options);
    CHECK(scored_places(stream, options) == expected);

    // What is read, put together again: all but each document's last byte, and nothing behind it.
    std::vector<Texts> rows(std::size_t(options.batch));
    std::int64_t steps = 0;
    while (const std::optional<Segment> segment = stream.next()) {
      ++steps;
      CHECK(!segment->decoder_inputs.defined());
      CHECK(!segment->padding.defined());
      for (std::int64_t row = 0; row < options.batch; ++row) {
        Texts& pieces = rows[std::size_t(row)];
        Tokens tokens = row_of(segment->tokens, row);
        const bool first = resets(*segment, row);
        if (first) pieces.emplace_back();
        if (first && options.score_first_segment) {
          CHECK(tokens.front() == mf::kBeginToken);
          tokens.erase(tokens.begin());
        }
        const std::string read = mf::decode_bytes(tokens);
        CHECK(mf::encode_bytes(read) ==
              Tokens(tokens.begin(), std::ranges::find(tokens, mf::kBeginToken)));
        pieces.back() += read;
      }
    }
    Texts pieces, read = expected_pieces(documents, options);
    for (const Texts& row : rows) pieces.insert(pieces.end(), row.begin(), row.end());
    for (std::string& piece : read) piece.pop_back();
    CHECK(pieces == read);
    CHECK(steps == stream.steps_per_epoch());
    CHECK(stream.epochs() == 1);
  }
}

TEST_CASE("text_stream: next_token in a small case") {
  const std::int32_t B = mf::kBeginToken, no = mf::kIgnore;
  const Texts documents = {"abcdefgh", "xyz", "stuv"};
  TextStreamOptions options{.segment_length = 3, .prediction = Prediction::next_token};
  TextStream unscored(documents, options);
  REQUIRE(unscored.steps_per_epoch() == 4);  // "xyz" has one segment only
  const std::pair<Tokens, Tokens> expected[] = {
      {{'a', 'b', 'c'}, {no, no, 'd'}},
      {{'d', 'e', 'f'}, {'e', 'f', 'g'}},
      {{'g', B, B}, {'h', no, no}},
      {{'s', 't', 'u'}, {no, no, 'v'}},
  };
  for (const auto& [tokens, targets] : expected) {
    const Segment segment = *unscored.next();
    CHECK(row_of(segment.tokens, 0) == tokens);
    CHECK(row_of(segment.targets, 0) == targets);
    CHECK(resets(segment, 0) == (tokens[0] == 'a' || tokens[0] == 's'));
  }
  options.score_first_segment = true;
  TextStream scored(documents, options);
  const std::pair<Tokens, Tokens> with_first[] = {
      {{B, 'a', 'b'}, {'a', 'b', 'c'}}, {{'c', 'd', 'e'}, {'d', 'e', 'f'}},
      {{'f', 'g', B}, {'g', 'h', no}},  {{B, 'x', 'y'}, {'x', 'y', 'z'}},
      {{B, 's', 't'}, {'s', 't', 'u'}}, {{'u', B, B}, {'v', no, no}},
  };
  REQUIRE(scored.steps_per_epoch() == 6);
  for (const auto& [tokens, targets] : with_first) {
    const Segment segment = *scored.next();
    CHECK(row_of(segment.tokens, 0) == tokens);
    CHECK(row_of(segment.targets, 0) == targets);
    CHECK(resets(segment, 0) == (tokens[0] == B));
  }
}

TEST_CASE("text_stream: documents of one length are not cut by shares") {
  for (const Prediction prediction : kPredictions) {
    const TextStreamOptions options{
        .batch = 4, .segment_length = 3, .prediction = prediction, .wrap = false};
    TextStream stream(Texts(10, "1234567"), options);
    CHECK(documents_of_rows(stream, 4) == std::vector{2, 3, 2, 3});
    CHECK(stream.scored_bytes_per_epoch() == 10 * 4);
    // Unless there are fewer than rows: the shares are then of 7 bytes.
    TextStream few(Texts(2, "0123456789abcd"), options);
    CHECK(documents_of_rows(few, 4) == std::vector{1, 1, 1, 1});
    CHECK(few.scored_bytes_per_epoch() == 4 * 4);
    // Or lengths differ: the shares are of 17 or 18 bytes.
    Texts unequal(10, "1234567");
    unequal.back().pop_back();
    CHECK(TextStream(unequal, options).scored_bytes_per_epoch() ==
          2 * 4 + (1 + 4 + 3) + 2 * 4 + (2 + 4 + 3));
  }
}

TEST_CASE("text_stream: with first segments scored every byte counts once") {
  const Texts documents = {"a", "bc", "defghijk", "", "lmnopqrstuvwxyz"};
  TextStream stream(documents, {.batch = 1, .segment_length = 4, .score_first_segment = true});
  CHECK(stream.scored_bytes_per_epoch() == 26);
  TextStream unscored(documents, {.batch = 1, .segment_length = 4});
  CHECK(unscored.scored_bytes_per_epoch() == 26 - 3 - 2 * 4);  // a, bc, and two first segments
}

TEST_CASE("text_stream: in training a row starts its share again and resets") {
  const Texts documents = random_documents(mf::RngKey{3}, 5, 40);
  for (const Prediction prediction : kPredictions) {
    TextStream stream(documents, {.batch = 1, .segment_length = 4, .prediction = prediction});
    const std::int64_t steps = stream.steps_per_epoch();
    std::vector<Segment> first;
    for (std::int64_t i = 0; i < steps; ++i) first.push_back(*stream.next());
    CHECK(stream.epochs() == 1);
    CHECK(resets(first.front(), 0));
    for (int epoch = 0; epoch < 2; ++epoch)
      for (const Segment& segment : first) CHECK(same(segment, *stream.next()));
    CHECK(stream.epochs() == 3);
  }
}

TEST_CASE("text_stream: a position continues exactly") {
  const Texts documents = random_documents(mf::RngKey{5}, 9, 90);
  for (const bool score_first : {false, true}) {
    for (const Prediction prediction : kPredictions) {
      const TextStreamOptions options{.batch = 2,
                                      .segment_length = 5,
                                      .prediction = prediction,
                                      .score_first_segment = score_first};
      TextStream stream(documents, options);
      for (int taken = 0; taken < 60; ++taken) {
        TextStream resumed(documents, options);
        resumed.seek(stream.position());
        CHECK(resumed.position() == stream.position());
        const double epochs = stream.epochs();
        CHECK(resumed.epochs() == epochs);
        TextStream original = stream;
        for (int i = 0; i < 5; ++i) CHECK(same(*resumed.next(), *original.next()));
        stream.next();
      }
    }
  }
}

TEST_CASE("text_stream: rows at their end idle until all are there") {
  // Row 0: one document of 8 segments, 7 steps. Row 1: three documents of 3 segments, 2 steps each.
  const Texts documents = {std::string(32, 'a'), std::string(10, 'b'), std::string(10, 'c'),
                           std::string(12, 'd')};
  TextStream stream(documents, {.batch = 2, .segment_length = 4, .wrap = false});
  REQUIRE(stream.steps_per_epoch() == 7);
  for (int step = 0; step < 7; ++step) {
    const std::optional<Segment> segment = stream.next();
    REQUIRE(segment);
    const bool idle = step >= 6;
    CHECK((row_of(segment->targets, 1) == Tokens(4, mf::kIgnore)) == idle);
    CHECK((row_of(segment->tokens, 1) == Tokens(4, mf::kBeginToken)) == idle);
    CHECK(segment->reset.defined() == (step == 0 || step == 2 || step == 4));
    CHECK(!segment->padding.defined());
  }
  CHECK(!stream.next());
  CHECK(!stream.next());
}

TEST_CASE("text_stream: errors name the sizes") {
  const Texts documents = {"short", "texts"};
  CHECK_THROWS_WITH_AS(TextStream(documents, {.batch = 2, .segment_length = 8}),
                       Contains("segment length 8, batch 2, 10 bytes in 2 documents"), mf::Error);
  CHECK_THROWS_WITH_AS(
      TextStream({}, {.batch = 1, .segment_length = 8, .score_first_segment = true}),
      Contains("too little text"), mf::Error);
  CHECK_THROWS_WITH_AS(TextStream(documents, {.batch = 0}), Contains("must be positive"),
                       mf::Error);
  CHECK_THROWS_WITH_AS(TextStream(documents, {.batch = 1 << 20, .segment_length = 1 << 20}),
                       Contains("at most 1073741824 tokens"), mf::Error);
  TextStream stream(documents, {.batch = 1, .segment_length = 2});
  TextStream other(documents, {.batch = 2, .segment_length = 2});
  CHECK_THROWS_WITH_AS(stream.seek(other.position()), Contains("is another stream's"), mf::Error);
  const TextStream by_token(
      documents, {.batch = 1, .segment_length = 2, .prediction = Prediction::next_token});
  CHECK_THROWS_WITH_AS(stream.seek(by_token.position()), Contains("is another stream's"),
                       mf::Error);
  CHECK_THROWS_WITH_AS(stream.seek({}), Contains("is another stream's"), mf::Error);
}

TEST_SUITE_END();
