#include "memformer/data/synthetic.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "tensor/error.h"

namespace mf {
namespace {

using Tokens = std::vector<std::int32_t>;

constexpr std::int32_t kSymbols = 8;
constexpr std::int32_t kLetters = 26, kDigits = 10;
constexpr std::int32_t kKeys = 16, kValues = 16;

/// `count` independent tokens from 0..bound-1.
Tokens draw(RngKey key, std::int64_t count, std::int32_t bound) {
  Tokens drawn;
  for (std::int64_t i = 0; i < count; ++i)
    drawn.push_back(static_cast<std::int32_t>(
        key.below(static_cast<std::uint64_t>(bound), static_cast<std::uint64_t>(i))));
  return drawn;
}

/// `count` distinct tokens from 0..bound-1, every order equally likely: a shuffle stopped early.
Tokens draw_distinct(RngKey key, std::int64_t count, std::int32_t bound) {
  Tokens all(static_cast<std::size_t>(bound));
  std::iota(all.begin(), all.end(), 0);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
    std::swap(all[i], all[i + key.below(all.size() - i, i)]);
  all.resize(static_cast<std::size_t>(count));
  return all;
}

/// All rows' tokens of columns begin..end-1 as i32 [B, end - begin].
Tensor columns(const std::vector<Tokens>& rows, std::int64_t begin, std::int64_t end) {
  Tokens values;
  for (const Tokens& row : rows)
    values.insert(values.end(), row.begin() + begin, row.begin() + end);
  return from_host(values, Shape{static_cast<std::int64_t>(rows.size()), end - begin});
}

Tensor all_rows_reset(std::int64_t batch) { return full(Shape{batch}, 1, DType::u8); }

template <class Row>
std::vector<Tokens> rows_of(RngKey key, std::int64_t batch, const Row& row) {
  check(batch > 0, "synthetic task: batch must be positive; {}", batch);
  std::vector<Tokens> rows;
  for (std::int64_t b = 0; b < batch; ++b)
    rows.push_back(row(key.at(static_cast<std::uint64_t>(b))));
  return rows;
}

/// A task written as one sequence, whose last `answers()` tokens are scored.
class SequenceTask : public SyntheticTask {
 public:
  SequenceTask(std::int64_t segment_length, Prediction prediction)
      : segment_length_(segment_length), prediction_(prediction) {}

  std::int64_t segments() const final { return ceil_div(length() - ahead(), segment_length_); }
  int min_difficulty() const final {
    // The first tokens are never targets, so no answer may lie there.
    int least = 1;
    while (question(least) < ahead()) ++least;
    return least;
  }

  std::vector<Segment> window(RngKey key, std::int64_t batch) const final {
    std::vector<Tokens> rows = rows_of(key, batch, [&](RngKey k) { return sequence(k); });
    const std::int64_t L = segment_length_, whole = segments() * L + ahead();
    std::vector<Tokens> targets = rows;
    for (std::size_t b = 0; b < rows.size(); ++b) {
      std::fill_n(targets[b].begin(), question(difficulty()), kIgnore);
      targets[b].resize(static_cast<std::size_t>(whole), kIgnore);
      if (prediction_ == Prediction::next_token) rows[b].pop_back();  // only a target
      rows[b].resize(static_cast<std::size_t>(whole), begin_token());
    }

    std::vector<Segment> window(static_cast<std::size_t>(segments()));
    for (std::int64_t t = 0; t < segments(); ++t) {
      Segment& segment = window[static_cast<std::size_t>(t)];
      const std::int64_t next = t * L + ahead(), end = next + L;
      segment.tokens = columns(rows, t * L, (t + 1) * L);
      const std::int64_t scored = std::min(end, length()) - std::max(next, question(difficulty()));
      if (scored <= 0) continue;
      segment.scored = scored * batch;
      segment.targets = columns(targets, next, end);
      if (prediction_ == Prediction::next_token) continue;
      std::vector<Tokens> inputs;
      for (const Tokens& row : rows) {
        inputs.push_back({begin_token()});
        inputs.back().insert(inputs.back().end(), row.begin() + next, row.begin() + end - 1);
      }
      segment.decoder_inputs = columns(inputs, 0, L);
    }
    window.front().reset = all_rows_reset(batch);
    return window;
  }

 protected:
  virtual Tokens sequence(RngKey key) const = 0;
  /// Tokens before the answer at some difficulty, and in the answer at the present one.
  virtual std::int64_t question(int difficulty) const = 0;
  virtual std::int64_t answer() const = 0;

 private:
  std::int64_t length() const { return question(difficulty()) + answer(); }
  std::int32_t begin_token() const { return static_cast<std::int32_t>(vocabulary()) - 1; }
  std::int64_t ahead() const { return target_offset(prediction_, segment_length_); }

  std::int64_t segment_length_;
  Prediction prediction_;
};

/// copy and reverse.
class RepeatTask final : public SequenceTask {
 public:
  RepeatTask(bool reversed, std::int64_t segment_length, Prediction prediction)
      : SequenceTask(segment_length, prediction), reversed_(reversed) {}

  std::string name() const override { return reversed_ ? "reverse" : "copy"; }
  std::int64_t vocabulary() const override { return kSymbols + 2; }
  double chance() const override { return 1.0 / kSymbols; }
  int max_difficulty() const override { return 1'000'000; }

 private:
  Tokens sequence(RngKey key) const override {
    const Tokens symbols = draw(key.at("symbols"), difficulty(), kSymbols);
    Tokens all = symbols;
    all.push_back(kSymbols);  // start mark
    if (reversed_) {
      all.insert(all.end(), symbols.rbegin(), symbols.rend());
    } else {
      for (int repetition = 0; repetition < 2; ++repetition)
        all.insert(all.end(), symbols.begin(), symbols.end());
    }
    return all;
  }
  std::int64_t question(int difficulty) const override { return difficulty + 1; }
  std::int64_t answer() const override { return reversed_ ? difficulty() : 2 * difficulty(); }

  bool reversed_;
};

class AssociativeTask final : public SequenceTask {
 public:
  using SequenceTask::SequenceTask;

  std::string name() const override { return "associative"; }
  std::int64_t vocabulary() const override { return kLetters + kDigits + 2; }
  double chance() const override { return 1.0 / kDigits; }
  int max_difficulty() const override { return kDigits; }

 private:
  Tokens sequence(RngKey key) const override {
    const Tokens letters = draw_distinct(key.at("keys"), difficulty(), kLetters);
    const Tokens digits = draw_distinct(key.at("values"), difficulty(), kDigits);
    Tokens all;
    for (std::size_t i = 0; i < letters.size(); ++i) {
      all.push_back(letters[i]);
      all.push_back(kLetters + digits[i]);
    }
    const std::size_t asked = key.at("query").below(letters.size(), 0);
    const std::int32_t query_mark = kLetters + kDigits;
    all.insert(all.end(), {letters[asked], query_mark, kLetters + digits[asked]});
    return all;
  }
  std::int64_t question(int difficulty) const override { return 2 * difficulty + 2; }
  std::int64_t answer() const override { return 1; }
};

/// remember and rewrite.
class KeyValueTask final : public SyntheticTask {
 public:
  KeyValueTask(bool rewrite, Prediction prediction) : rewrite_(rewrite), prediction_(prediction) {}

  std::string name() const override { return rewrite_ ? "rewrite" : "remember"; }
  std::int64_t vocabulary() const override { return kKeys + kValues + 2; }
  double chance() const override { return 1.0 / kValues; }
  std::int64_t segments() const override { return difficulty() + 1; }
  int min_difficulty() const override { return 1; }
  int max_difficulty() const override { return rewrite_ ? 1'000'000 : kKeys; }

  std::vector<Segment> window(RngKey key, std::int64_t batch) const override {
    const std::vector<Tokens> rows = rows_of(key, batch, [&](RngKey k) { return row(k); });
    const std::int64_t pairs = difficulty(), query = 2 * pairs;
    std::vector<Segment> window(static_cast<std::size_t>(segments()));
    for (std::int64_t t = 0; t <= pairs; ++t)
      window[static_cast<std::size_t>(t)].tokens = columns(rows, 2 * t, 2 * t + 2);
    const std::int64_t begin = query + 2, answer = query + 3;
    if (prediction_ == Prediction::next_segment) {
      window.back().decoder_inputs = columns(rows, begin, answer);
      window.back().targets = columns(rows, answer, answer + 1);
    } else {
      std::vector<Tokens> targets = rows;
      for (Tokens& row : targets) row[static_cast<std::size_t>(begin)] = kIgnore;
      window.back().targets = columns(targets, begin, answer + 1);
    }
    window.back().scored = batch;
    window.front().reset = all_rows_reset(batch);
    return window;
  }

 private:
  /// key, value, key, value, ..., query mark, key, begin, value.
  Tokens row(RngKey key) const {
    const std::int64_t pairs = difficulty();
    const Tokens keys =
        rewrite_ ? draw(key.at("keys"), pairs, kKeys) : draw_distinct(key.at("keys"), pairs, kKeys);
    const Tokens values = draw(key.at("values"), pairs, kValues);
    Tokens all, written;
    Tokens latest(kKeys, 0);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const std::int32_t value = kKeys + values[i];
      all.insert(all.end(), {keys[i], value});
      latest[static_cast<std::size_t>(keys[i])] = value;
      if (std::ranges::find(written, keys[i]) == written.end()) written.push_back(keys[i]);
    }
    const std::int32_t asked = written[key.at("query").below(written.size(), 0)];
    const std::int32_t query_mark = kKeys + kValues, begin_token = query_mark + 1;
    all.insert(all.end(),
               {query_mark, asked, begin_token, latest[static_cast<std::size_t>(asked)]});
    return all;
  }

  bool rewrite_;
  Prediction prediction_;
};

}  // namespace

void SyntheticTask::set_difficulty(int difficulty) {
  check(difficulty >= min_difficulty() && difficulty <= max_difficulty(),
        "synthetic task: difficulty is out of range; {} of task {}, here {}..{}; shorter segments "
        "allow easier sequences",
        difficulty, name(), min_difficulty(), max_difficulty());
  difficulty_ = difficulty;
}

std::unique_ptr<SyntheticTask> make_task(std::string_view name, const TaskOptions& options) {
  check(options.segment_length > 0 && options.segment_length <= 1'000'000,
        "make_task: segment length is out of range; {}; give 1..1000000", options.segment_length);
  const std::int64_t length = options.segment_length;
  const Prediction prediction = options.prediction;
  std::unique_ptr<SyntheticTask> task;
  if (name == "copy") task = std::make_unique<RepeatTask>(false, length, prediction);
  if (name == "reverse") task = std::make_unique<RepeatTask>(true, length, prediction);
  if (name == "associative") task = std::make_unique<AssociativeTask>(length, prediction);
  if (name == "remember") task = std::make_unique<KeyValueTask>(false, prediction);
  if (name == "rewrite") task = std::make_unique<KeyValueTask>(true, prediction);
  check(
      task != nullptr,
      "make_task: unknown task `{}`; known are copy, reverse, associative, remember, rewrite; give "
      "one of them",
      name);
  task->set_difficulty(options.difficulty == 0 ? task->difficulty() : options.difficulty);
  return task;
}

double exact_match(const Tensor& logits, const Tensor& targets) {
  check(logits.defined() && targets.defined() && logits.rank() == targets.rank() + 1 &&
            logits.shape().without(logits.rank() - 1) == targets.shape(),
        "exact_match: shapes do not fit; logits {}, targets {}; logits need one more axis, the "
        "vocabulary",
        logits, targets);
  const std::vector<double> scores = logits.to(DType::f64).to_vector<double>();
  const std::vector<std::int32_t> wanted = targets.to_vector<std::int32_t>();
  const std::int64_t vocabulary = logits.size(-1);
  std::int64_t scored = 0, right = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == kIgnore) continue;
    const auto begin = scores.begin() + static_cast<std::int64_t>(i) * vocabulary;
    ++scored;
    right += std::max_element(begin, begin + vocabulary) - begin == wanted[i];
  }
  check(scored > 0,
        "exact_match: nothing is scored; all targets {} are ignored; leave such steps out",
        targets);
  return static_cast<double>(right) / static_cast<double>(scored);
}

}  // namespace mf
