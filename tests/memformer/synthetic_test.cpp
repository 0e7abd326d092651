#include "memformer/data/synthetic.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tensor/error.h"

using doctest::Approx;
using doctest::Contains;
using mf::make_task;
using mf::Prediction;
using mf::RngKey;
using mf::Segment;
using mf::Tensor;

namespace {

using Tokens = std::vector<std::int32_t>;

Tokens row_of(const Tensor& tensor, std::int64_t row) {
  return tensor.slice(0, row, row + 1).contiguous().to_vector<std::int32_t>();
}

/// A row put together again: what each step reads, then what the last step's decoder reads.
/// `scored[i]` is the target at place i of the sequence, or kIgnore.
struct Row {
  Tokens tokens, scored;
};

Row read_row(const std::vector<Segment>& window, std::int64_t row) {
  Row read;
  const auto append = [](Tokens& to, const Tokens& more) {
    to.insert(to.end(), more.begin(), more.end());
  };
  read.scored = Tokens(static_cast<std::size_t>(window.front().tokens.size(1)), mf::kIgnore);
  for (const Segment& segment : window) {
    append(read.tokens, row_of(segment.tokens, row));
    append(read.scored,
           segment.targets.defined()
               ? row_of(segment.targets, row)
               : Tokens(static_cast<std::size_t>(segment.tokens.size(1)), mf::kIgnore));
  }
  const Tokens inputs = row_of(window.back().decoder_inputs, row);
  read.tokens.insert(read.tokens.end(), inputs.begin() + 1, inputs.end());
  read.tokens.push_back(read.scored.back());
  return read;
}

Tokens part(const Tokens& tokens, std::size_t begin, std::size_t count) {
  REQUIRE(begin + count <= tokens.size());
  const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(begin);
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

Tokens joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Checks what all windows share: shapes, resets, counts, and decoder inputs.
void check_layout(const mf::SyntheticTask& task, const std::vector<Segment>& window,
                  std::int64_t batch) {
  REQUIRE(static_cast<std::int64_t>(window.size()) == task.segments());
  const auto begin_token = static_cast<std::int32_t>(task.vocabulary() - 1);
  for (std::size_t t = 0; t < window.size(); ++t) {
    const Segment& segment = window[t];
    CHECK(segment.batch() == batch);
    CHECK(segment.reset.defined() == (t == 0));
    CHECK(!segment.padding.defined());
    CHECK(segment.targets.defined() == segment.decoder_inputs.defined());
    for (const std::int32_t token : segment.tokens.to_vector<std::int32_t>())
      CHECK((token >= 0 && token < begin_token));
    if (!segment.targets.defined()) {
      CHECK(segment.scored == 0);
      continue;
    }
    const Tokens targets = segment.targets.to_vector<std::int32_t>();
    CHECK(segment.scored > 0);
    CHECK(segment.scored == std::ssize(targets) - std::ranges::count(targets, mf::kIgnore));
    for (std::int64_t b = 0; b < batch; ++b) {
      const Tokens inputs = row_of(segment.decoder_inputs, b), wanted = row_of(segment.targets, b);
      CHECK(inputs.front() == begin_token);
      REQUIRE(inputs.size() == wanted.size());
      for (std::size_t i = 0; i + 1 < wanted.size(); ++i)
        if (wanted[i] != mf::kIgnore) CHECK(inputs[i + 1] == wanted[i]);
    }
  }
  CHECK(window.front().reset.to_vector<std::uint8_t>() ==
        std::vector<std::uint8_t>(static_cast<std::size_t>(batch), 1));
  CHECK(window.back().scored > 0);
}

/// A row of a window in next_token form, from the tokens and from the targets behind them.
Row read_row_by_token(const std::vector<Segment>& window, std::int64_t row) {
  Row read;
  read.scored = {mf::kIgnore};
  for (const Segment& segment : window) {
    CHECK(!segment.padding.defined());
    CHECK(!segment.decoder_inputs.defined());
    const Tokens tokens = row_of(segment.tokens, row);
    Tokens targets(tokens.size(), mf::kIgnore);
    if (segment.targets.defined()) targets = row_of(segment.targets, row);
    REQUIRE(targets.size() == tokens.size());
    const std::int64_t scored = std::ssize(targets) - std::ranges::count(targets, mf::kIgnore);
    CHECK(segment.scored == segment.batch() * scored);
    CHECK(segment.targets.defined() == (scored > 0));
    read.tokens.insert(read.tokens.end(), tokens.begin(), tokens.end());
    read.scored.insert(read.scored.end(), targets.begin(), targets.end());
  }
  return read;
}

bool within(std::int64_t count, double expected) {  // five standard deviations, at most
  return std::abs(static_cast<double>(count) - expected) < 5 * std::sqrt(expected);
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("synthetic: copy and reverse ask for the symbols before the start mark") {
  for (const bool reversed : {false, true}) {
    for (const int n : {4, 5, 8, 13}) {
      for (const std::int64_t length : {1, 3, 5}) {
        const auto task = make_task(reversed ? "reverse" : "copy", {n, length});
        const auto window = task->window(RngKey{1}, 6);
        check_layout(*task, window, 6);
        for (std::int64_t b = 0; b < 6; ++b) {
          const Row row = read_row(window, b);
          const auto count = static_cast<std::size_t>(n);
          Tokens symbols = part(row.tokens, 0, count);
          for (const std::int32_t symbol : symbols) CHECK((symbol >= 0 && symbol < 8));
          CHECK(row.tokens[count] == 8);
          Tokens answer = symbols;
          if (reversed) {
            std::ranges::reverse(answer);
          } else {
            answer = joined(symbols, symbols);
          }
          CHECK(part(row.scored, 0, count + 1) == Tokens(count + 1, mf::kIgnore));
          CHECK(part(row.scored, count + 1, answer.size()) == answer);
          CHECK(std::ranges::count(row.scored, mf::kIgnore) ==
                std::ssize(row.scored) - std::ssize(answer));
        }
      }
    }
  }
}

TEST_CASE("synthetic: associative asks for the value of one of distinct keys") {
  for (const int pairs : {3, 4, 10}) {
    const auto task = make_task("associative", {pairs, 5});
    const auto window = task->window(RngKey{2}, 40);
    check_layout(*task, window, 40);
    std::set<std::size_t> asked;
    for (std::int64_t b = 0; b < 40; ++b) {
      const Row row = read_row(window, b);
      std::map<std::int32_t, std::int32_t> value_of;
      std::set<std::int32_t> values;
      const auto end = 2 * static_cast<std::size_t>(pairs);
      for (std::size_t i = 0; i < end; i += 2) {
        CHECK((row.tokens[i] >= 0 && row.tokens[i] < 26));
        CHECK((row.tokens[i + 1] >= 26 && row.tokens[i + 1] < 36));
        value_of[row.tokens[i]] = row.tokens[i + 1];
        values.insert(row.tokens[i + 1]);
        if (row.tokens[i] == row.tokens[end]) asked.insert(i);
      }
      CHECK(std::ssize(value_of) == pairs);
      CHECK(std::ssize(values) == pairs);
      CHECK(row.tokens[end + 1] == 36);
      CHECK(row.scored[end + 2] == value_of.at(row.tokens[end]));
      CHECK(std::ranges::count(row.scored, mf::kIgnore) == std::ssize(row.scored) - 1);
    }
    CHECK(asked.size() > 2);
  }
}

TEST_CASE("synthetic: remember and rewrite ask for a key's latest value") {
  for (const bool rewrite : {false, true}) {
    for (const int pairs : {1, 2, 7, 16}) {
      const auto task = make_task(rewrite ? "rewrite" : "remember", {pairs});
      const std::int64_t batch = 50;
      const auto window = task->window(RngKey{3}, batch);
      check_layout(*task, window, batch);
      CHECK(std::ssize(window) == pairs + 1);
      bool repeated = false;
      for (std::int64_t b = 0; b < batch; ++b) {
        std::map<std::int32_t, std::int32_t> latest;
        for (std::size_t t = 0; t + 1 < window.size(); ++t) {
          const Tokens pair = row_of(window[t].tokens, b);
          REQUIRE(pair.size() == 2);
          CHECK((pair[0] >= 0 && pair[0] < 16));
          CHECK((pair[1] >= 16 && pair[1] < 32));
          repeated = repeated || latest.count(pair[0]) > 0;
          latest[pair[0]] = pair[1];
          CHECK(!window[t].targets.defined());
        }
        const Tokens query = row_of(window.back().tokens, b);
        CHECK(query[0] == 32);
        CHECK(row_of(window.back().decoder_inputs, b) == Tokens{33});
        CHECK(row_of(window.back().targets, b) == Tokens{latest.at(query[1])});
      }
      CHECK(repeated == (rewrite && pairs > 1));
    }
  }
}

TEST_CASE("synthetic: next_token asks for the answers of next_segment") {
  const auto next_token = Prediction::next_token;
  for (const char* name : {"copy", "reverse", "associative"}) {
    CAPTURE(name);
    for (const int n : {4, 5, 9}) {
      const int length = name == std::string("copy") ? 3 * n + 1 : 2 * n + (*name == 'r' ? 1 : 3);
      for (const std::int64_t segment : {1, 3, 5}) {
        const auto task = make_task(name, {n, segment}),
                   by_token = make_task(name, {n, segment, next_token});
        const auto window = task->window(RngKey{8}, 3), other = by_token->window(RngKey{8}, 3);
        CHECK(by_token->segments() == (length - 1 + segment - 1) / segment);
        CHECK(std::ssize(other) == by_token->segments());
        CHECK(by_token->vocabulary() == task->vocabulary());
        const auto begin_token = static_cast<std::int32_t>(task->vocabulary() - 1);
        for (std::int64_t b = 0; b < 3; ++b) {
          Row expected = read_row(window, b), row = read_row_by_token(other, b);
          const auto read = static_cast<std::size_t>(length) - 1;  // all but the last token
          CHECK(part(row.tokens, 0, read) == part(expected.tokens, 0, read));
          CHECK(std::ranges::count(row.tokens, begin_token) == std::ssize(row.tokens) - length + 1);
          row.scored.resize(expected.scored.size(), mf::kIgnore);
          CHECK(row.scored == expected.scored);
        }
      }
    }
  }
  for (const char* name : {"remember", "rewrite"}) {
    for (const int pairs : {1, 7}) {
      const auto window = make_task(name, {pairs})->window(RngKey{8}, 20);
      const auto other = make_task(name, {pairs, 4, next_token})->window(RngKey{8}, 20);
      REQUIRE(other.size() == window.size());
      for (std::int64_t b = 0; b < 20; ++b) {
        read_row_by_token(other, b);  // for its checks
        for (std::size_t t = 0; t < window.size(); ++t)
          CHECK(row_of(other[t].tokens, b) == row_of(window[t].tokens, b));
        const std::int32_t value = row_of(window.back().targets, b).at(0);
        CHECK(row_of(other.back().targets, b) == Tokens{mf::kIgnore, value});
      }
      for (std::size_t t = 0; t < window.size(); ++t) CHECK(other[t].reset.defined() == (t == 0));
    }
  }
}

TEST_CASE("synthetic: next_token reads all but the last token, however few") {
  const auto next_token = Prediction::next_token;
  const auto copy = make_task("copy", {24, 8, next_token});
  CHECK(copy->segments() == 9);  // 3 * 24 inputs fill them
  for (const Segment& segment : copy->window(RngKey{1}, 2))
    CHECK(std::ranges::count(segment.tokens.to_vector<std::int32_t>(), 9) == 0);
  CHECK(make_task("reverse", {24, 8, next_token})->segments() == 6);      // 2 * 24 inputs
  CHECK(make_task("associative", {4, 10, next_token})->segments() == 1);  // 2 * 4 + 2 inputs
  CHECK(make_task("associative", {4, 9, next_token})->segments() == 2);

  const auto least = make_task("copy", {1, 5, next_token});
  CHECK(least->min_difficulty() == 1);
  const auto window = least->window(RngKey{1}, 1);
  REQUIRE(window.size() == 1);
  const Tokens tokens = row_of(window[0].tokens, 0);
  const std::int32_t symbol = tokens[0], no = mf::kIgnore;
  CHECK(tokens == Tokens{symbol, 8, symbol, 9, 9});
  CHECK(row_of(window[0].targets, 0) == Tokens{no, symbol, symbol, no, no});
  CHECK(window[0].scored == 2);
}

TEST_CASE("synthetic: keys, values and queries are roughly uniform") {
  const std::int64_t batch = 4000;
  for (const char* name : {"remember", "rewrite"}) {
    const auto window = make_task(name, {4})->window(RngKey{4}, batch);
    const Tokens first = window[0].tokens.to_vector<std::int32_t>();
    const Tokens query = window[4].tokens.to_vector<std::int32_t>();
    const Tokens answers = window[4].targets.to_vector<std::int32_t>();
    for (std::int32_t i = 0; i < 16; ++i) {
      const double expected = static_cast<double>(batch) / 16;
      CHECK(within(std::ranges::count(first, i), expected));
      CHECK(within(std::ranges::count(first, 16 + i), expected));
      CHECK(within(std::ranges::count(query, i), expected));
      CHECK(within(std::ranges::count(answers, 16 + i), expected));
    }
    if (std::string(name) == "rewrite") continue;
    for (std::size_t t = 0; t < 4; ++t) {
      const Tokens pair = window[t].tokens.to_vector<std::int32_t>();
      std::int64_t asked = 0;
      for (std::size_t b = 0; b < static_cast<std::size_t>(batch); ++b)
        asked += pair[2 * b] == query[2 * b + 1];
      CHECK(within(asked, static_cast<double>(batch) / 4));
    }
  }
  const auto copied = make_task("copy", {4, 4})->window(RngKey{5}, batch);
  const Tokens symbols = copied[0].tokens.to_vector<std::int32_t>();
  for (std::int32_t i = 0; i < 8; ++i)
    CHECK(within(std::ranges::count(symbols, i), static_cast<double>(4 * batch) / 8));
}

TEST_CASE("synthetic: a row is a function of key and row alone") {
  for (const char* name : {"copy", "reverse", "associative", "remember", "rewrite"}) {
    const auto task = make_task(name);
    const auto small = task->window(RngKey{6}, 2), large = task->window(RngKey{6}, 9);
    const auto other = task->window(RngKey{7}, 9);
    bool differs = false;
    for (std::size_t t = 0; t < small.size(); ++t) {
      for (std::int64_t b = 0; b < 2; ++b)
        CHECK(row_of(small[t].tokens, b) == row_of(large[t].tokens, b));
      if (small[t].targets.defined())
        CHECK(row_of(small[t].targets, 1) == row_of(large[t].targets, 1));
      differs = differs || mf::first_difference(large[t].tokens, other[t].tokens) >= 0;
    }
    CHECK(differs);
  }
}

TEST_CASE("synthetic: difficulty sets the length, and its limits are named") {
  const auto task = make_task("remember");
  CHECK(task->segments() == 5);
  task->set_difficulty(9);
  CHECK(task->difficulty() == 9);
  CHECK(task->segments() == 10);
  CHECK_THROWS_WITH_AS(task->set_difficulty(17), Contains("17 of task remember, here 1..16"),
                       mf::Error);
  CHECK(task->chance() == Approx(1.0 / 16));
  CHECK(task->vocabulary() == 34);
  CHECK(make_task("rewrite", {50})->segments() == 51);
  CHECK(make_task("copy", {4, 4})->segments() == 3);         // 13 tokens
  CHECK(make_task("reverse", {4, 4})->segments() == 2);      // 9 tokens
  CHECK(make_task("associative", {4, 4})->segments() == 2);  // 11 tokens
  // With 10 tokens a segment, three symbols would put answers into the first one.
  CHECK_THROWS_WITH_AS(make_task("copy", {3, 10}), Contains("here 9..1000000"), mf::Error);
  CHECK_THROWS_WITH_AS(make_task("recall"), Contains("known are copy, reverse, associative"),
                       mf::Error);
  CHECK_THROWS_WITH_AS(make_task("copy", {4, 0}), Contains("segment length"), mf::Error);
  CHECK_THROWS_WITH_AS(task->window(RngKey{1}, 0), Contains("batch must be positive"), mf::Error);
}

TEST_CASE("exact_match: counts scored positions only") {
  const Tensor logits = mf::from_host({0.f, 1.f, 2.f, 0.f, 5.f, 4.f}, mf::Shape{1, 3, 2});
  CHECK(mf::exact_match(logits, mf::from_host({1, 0, 1}, mf::Shape{1, 3})) == Approx(2.0 / 3));
  CHECK(mf::exact_match(logits, mf::from_host({1, mf::kIgnore, mf::kIgnore}, mf::Shape{1, 3})) ==
        1);
  CHECK_THROWS_WITH_AS(mf::exact_match(logits, mf::full({1, 3}, -1, mf::DType::i32)),
                       Contains("nothing is scored"), mf::Error);
  CHECK_THROWS_WITH_AS(mf::exact_match(logits, mf::zeros({3, 1}, mf::DType::i32)),
                       Contains("shapes do not fit"), mf::Error);
}

TEST_SUITE_END();
