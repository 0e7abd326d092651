#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "memformer/replay/segment.h"
#include "tensor/random.h"

namespace mf {

/// How hard a task is.
struct TaskOptions {
  /// Copy and reverse: symbols to remember; the others: pairs. 0 means the task's default, 4.
  int difficulty = 0;
  /// Tokens in a segment; only for the tasks written as one sequence (copy, reverse, associative).
  std::int64_t segment_length = 4;
  /// What the steps are scored on; the answers are the same.
  Prediction prediction = Prediction::next_segment;
};

/// A task whose answers are known, and can be given only by who remembers. A window is a whole
/// task: T segments for B rows, every row reset at the first one. Row b of a window is a function
/// of key.at(b) alone, so neither the other rows nor the batch size matter.
class SyntheticTask {
 public:
  virtual ~SyntheticTask() = default;

  /// As `make_task` takes it.
  virtual std::string name() const = 0;
  /// Token ids are 0..vocabulary()-1; the last one is the begin token of the decoder.
  virtual std::int64_t vocabulary() const = 0;
  /// Accuracy of a uniform guess among the possible answers.
  virtual double chance() const = 0;
  /// A task for each of `batch` rows, drawn from `key`, at the difficulty that is set.
  virtual std::vector<Segment> window(RngKey key, std::int64_t batch) const = 0;

  /// Steps of a window.
  virtual std::int64_t segments() const = 0;
  /// The easiest that this segment length allows.
  virtual int min_difficulty() const = 0;
  /// The hardest; where pairs must be distinct, as many as there can be.
  virtual int max_difficulty() const = 0;

  /// That of the next window.
  int difficulty() const { return difficulty_; }
  /// For a curriculum. Throws Error outside min_difficulty()..max_difficulty().
  void set_difficulty(int difficulty);

 private:
  int difficulty_ = 4;
};

/// One of the tasks below; throws Error on an unknown name, which lists them all.
///
/// Written as one sequence, cut into segments; a step is scored on the answer tokens in the next
/// segment (next_token: behind the tokens it reads, which are all but the sequence's last), and not
/// at all (no targets) where there are none:
///   copy         n of 8 symbols, start mark, the n symbols twice. Scored: both repetitions.
///                ids: symbols 0..7, start 8, begin 9
///   reverse      n of 8 symbols, start mark, the n symbols backwards. Scored: those. ids: as copy
///   associative  P pairs (of 26 keys and 10 values, both distinct), one of the keys, query
///                mark, its value. Scored: the last. ids: keys 0..25, values 26..35, query 36,
///                begin 37
/// Written as segments: one pair [key, value] each, without targets; then [query mark, key], whose
/// decoder reads [begin] and is scored on [value] (next_token: whose last token is scored on it);
/// every written key is asked for equally often:
///   remember     P distinct keys of 16, values of 16. ids: keys 0..15, values 16..31, query 32,
///                begin 33
///   rewrite      the same, but keys may repeat and the latest value counts
std::unique_ptr<SyntheticTask> make_task(std::string_view name, const TaskOptions& options = {});

/// The fraction of the scored positions whose largest logit is the target's. Logits f32 or f64
/// [..., V], targets i32 [...]. Throws Error where nothing is scored.
double exact_match(const Tensor& logits, const Tensor& targets);

}  // namespace mf
