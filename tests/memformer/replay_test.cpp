// M3: a replayed segment makes the state that the first pass made, and mrbp notices when it does
// not.

#include <doctest/doctest.h>

#include "tests/support.h"

namespace mf::test {
namespace {

Trial trial_of(int i) {
  Draws draw(RngKey{31}.at(static_cast<std::uint64_t>(i)));
  ModelConfig config = random_config(draw, i % 2 == 0 ? DType::f64 : DType::f32);
  config.slots = draw.between(1, 4);
  return random_trial(draw, config, draw.between(2, 8));
}

/// A plain model with dropout over five segments.
Trial faulty_trial() {
  Draws draw(RngKey{32});
  ModelConfig config;
  config.vocabulary = 11;
  config.width = 8;
  config.heads = 2;
  config.encoder_layers = 1;
  config.decoder_layers = 1;
  config.feed_forward = 12;
  config.segment = 5;
  config.slots = 3;
  config.dropout = 0.2;
  config.dtype = DType::f64;
  Trial trial = random_trial(draw, config, 5);
  for (Segment& segment : trial.segments) segment.reset = Tensor{};
  return trial;
}

/// Remembers the bits of every state that leaves, in the first pass and in the replay.
class Witness final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    LiveState next = Wrapped::next_state(pass, segment, state);
    first.push_back(values_of(next));
    return next;
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result = Wrapped::step(pass, segment, state);
    replayed.push_back(values_of(result.next));
    return result;
  }
  mutable std::vector<State> first;     ///< oldest first, all segments but the last
  mutable std::vector<State> replayed;  ///< newest first
};

/// The replay draws from another key than the first pass.
class WrongKey final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    return inner_.step(pass.at("another"), segment, state);
  }
};

/// A weight changes between the passes.
class ChangedWeight final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    for (Parameter parameter : parameters())
      if (steps == 0 && parameter.name() == "writer.value.weight")
        parameter.value().slice(0, 0, 1).slice(1, 0, 1).fill_(0.5);
    ++steps;
    return inner_.step(pass, segment, state);
  }
  mutable int steps = 0;
};

/// A kernel that is not deterministic: one element of one segment's state comes out one bit off.
class Nondeterministic final : public Wrapped {
 public:
  Nondeterministic(const Recurrence& inner, const Segment& segment, std::int64_t element)
      : Wrapped(inner), tokens_(segment.tokens), element_(element) {}
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result = inner_.step(pass, segment, state);
    if (!segment.tokens.shares_storage(tokens_)) return result;
    Tensor changed = result.next[0].value.value.clone();
    double& value = changed.mutable_data<double>()[element_];
    value = std::nextafter(value, 1e9);
    result.next[0].value.value = changed;
    return result;
  }

 private:
  Tensor tokens_;
  std::int64_t element_;
};

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("replay: every replayed state is the first pass's bit for bit, in 20 random runs") {
    for (int i = 0; i < 20; ++i) {
      const Trial trial = trial_of(i);
      const Witness witness(trial.model);
      WindowOptions options;
      options.check_replay = false;  // the test compares, not mrbp
      const Outcome outcome =
          run_window(mrbp, witness, trial.segments, trial.entry, trial.key, options);
      const std::size_t count = trial.segments.size();
      REQUIRE(witness.first.size() == count - 1);
      REQUIRE(witness.replayed.size() == count);
      for (std::size_t t = 0; t + 1 < count; ++t) {
        const Tensor& first = witness.first[t][0].value;
        CHECK_MESSAGE(identical(witness.replayed[count - 1 - t][0].value, first),
                      "run " << i << ", segment " << t << ": " << describe(trial));
        CHECK(identical(outcome.result.states[t + 1][0].value, first));
      }
      // The comparison can fail: neighbouring states differ.
      CHECK(!identical(witness.replayed[0][0].value, witness.replayed[1][0].value));
    }
  }

  TEST_CASE("replay: a wrong key is detected, naming segment and element") {
    const Trial trial = faulty_trial();
    const WrongKey faulty(trial.model);
    CHECK_THROWS_WITH_AS(
        run_window(mrbp, faulty, trial.segments, trial.entry, trial.key),
        doctest::Contains("replay: state 'memory' after segment 3 differs at element 0"), Error);
    // Without dropout nothing is drawn, and the key does not matter.
    ModelConfig config = trial.config;
    config.dropout = 0.0;
    const Memformer still(config, RngKey{1});
    CHECK_NOTHROW(run_window(mrbp, WrongKey(still), trial.segments, trial.entry, trial.key));
  }

  TEST_CASE("replay: a weight changed between the passes is detected, naming segment and element") {
    const Trial trial = faulty_trial();
    const ChangedWeight faulty(trial.model);
    std::string message;
    try {
      run_window(mrbp, faulty, trial.segments, trial.entry, trial.key);
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message.starts_with("replay: state 'memory' after segment 3 differs at element"));
    CHECK(message.ends_with(
        "a weight changed, another key was used or a kernel is not deterministic"));
    // The second window has the changed weight in both passes.
    CHECK_NOTHROW(run_window(mrbp, faulty, trial.segments, trial.entry, trial.key));
  }

  TEST_CASE("replay: one bit off in one element of any segment is detected and named") {
    const Trial trial = faulty_trial();
    for (std::size_t t = 0; t + 1 < trial.segments.size(); ++t) {
      const auto element = static_cast<std::int64_t>(3 * t + 1);
      const Nondeterministic faulty(trial.model, trial.segments[t], element);
      const std::string named = "state 'memory' after segment " + std::to_string(t) +
                                " differs at element " + std::to_string(element) + ";";
      CHECK_THROWS_WITH_AS(run_window(mrbp, faulty, trial.segments, trial.entry, trial.key),
                           doctest::Contains(named.c_str()), Error);
      WindowOptions unchecked;
      unchecked.check_replay = false;
      CHECK_NOTHROW(run_window(mrbp, faulty, trial.segments, trial.entry, trial.key, unchecked));
    }
  }

  TEST_CASE("replay: a state of another shape, dtype or number of tensors is detected and named") {
    const State stored{{"memory", zeros({2, 3}, DType::f64), true, {}}};
    CHECK_NOTHROW(require_same_bits(stored, stored, 7));
    const auto with = [](Tensor value) { return State{{"memory", std::move(value), true, {}}}; };
    CHECK_THROWS_WITH_AS(require_same_bits(with(zeros({3, 2}, DType::f64)), stored, 7),
                         doctest::Contains("state 'memory' after segment 7 is f64[3, 2]"), Error);
    CHECK_THROWS_WITH_AS(require_same_bits(with(zeros({2, 3}, DType::f32)), stored, 7),
                         doctest::Contains("is f32[2, 3] when it ran again, f64[2, 3] before"),
                         Error);
    CHECK_THROWS_WITH_AS(require_same_bits({}, stored, 7),
                         doctest::Contains("segment 7 gave 0 state tensors"), Error);
    // Bits, not values: -0 is not 0.
    CHECK_THROWS_WITH_AS(require_same_bits(with(full({2, 3}, -0.0, DType::f64)), stored, 7),
                         doctest::Contains("differs at element 0"), Error);
  }

  TEST_CASE("replay: a non-finite value is named with its op where check_finite is on") {
    const Trial trial = faulty_trial();
    for (Parameter parameter : trial.model.parameters())
      if (parameter.name() == "encoder.layers.0.feed_forward.up.weight")
        parameter.value().fill_(std::numeric_limits<double>::infinity());
    WindowOptions options;
    options.check_replay = false;
    CHECK_NOTHROW(run_window(mrbp, trial, options));
    options.check_finite = true;
    for (const WindowMethod method : {mrbp, bptt})
      CHECK_THROWS_WITH_AS(
          run_window(method, trial, options),
          doctest::Contains("linear in segment 0/encoder/layers.0/feed_forward/up"), Error);
  }
}

}  // namespace mf::test
