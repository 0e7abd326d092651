// Gradient checkpointing gives the bits of full unrolling, in the memory of one segment.

#include "memformer/replay/checkpointed.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "memformer/replay/mrbp.h"
#include "tensor/math.h"
#include "tensor/memory.h"
#include "tests/memformer/growing_cell.h"
#include "tests/support.h"

namespace mf::test {
namespace {

constexpr int kTrials = 30;
constexpr std::int64_t kLongestWindow = 5;

Trial checkpointed_trial(RngKey key, int i, DType dtype) {
  Draws draw(key.at(static_cast<std::uint64_t>(i)));
  const ModelConfig config = random_config(draw, dtype);
  Trial trial = random_trial(draw, config, 1 + i % kLongestWindow);
  const Boundary boundary{draw.pick<std::int64_t>({0, 0, 1, 2})};
  trial.entry = with_boundary(trial.entry, boundary);
  return trial;
}

void require_bits_of_unrolling(DType dtype) {
  const RngKey key = RngKey{61}.at(name_of(dtype));
  Coverage coverage;
  for (int i = 0; i < kTrials; ++i) {
    const Trial trial = checkpointed_trial(key, i, dtype);
    coverage.add(trial);
    const Outcome unrolled = run_window(bptt, trial);
    for (const int count : {1, 2}) {
      const ThreadScope scope(count);
      const std::vector<std::string> wrong =
          differences(run_window(checkpointed_bptt, trial), unrolled);
      CHECK_MESSAGE(wrong.empty(), "trial " << i << ", " << count << " threads: " << join(wrong)
                                            << " differ; " << describe(trial));
    }
  }
  const std::map<std::string, std::size_t> expected{
      {"architecture", 2}, {"dropout", 2},  {"attention_dropout", 2}, {"positions", 5},
      {"slots", 5},        {"segments", 5}, {"unscored segment", 2},  {"reset inside", 2}};
  CHECK_MESSAGE(coverage.missing(expected).empty(), coverage.missing(expected));
}

/// A model with dropout, and a window in which every segment costs the same.
Trial even_trial(std::int64_t segments, DType dtype) {
  constexpr std::int64_t kBatch = 4, kLength = 6;
  Draws draw(RngKey{62});
  ModelConfig config;
  config.vocabulary = 13;
  config.width = 16;
  config.heads = 2;
  config.encoder_layers = config.decoder_layers = 2;
  config.feed_forward = 32;
  config.segment = kLength;
  config.slots = 3;
  config.dropout = config.attention_dropout = 0.1;
  config.dtype = dtype;
  Trial trial{config, Memformer(config, draw.key()), {}, {}, draw.key()};
  trial.entry = trial.model.initial_state(kBatch);
  for (std::int64_t t = 0; t < segments; ++t) {
    Segment& segment = trial.segments.emplace_back();
    segment.tokens = random_ids(draw, kBatch, kLength, config.vocabulary);
    segment.decoder_inputs = random_ids(draw, kBatch, kLength, config.vocabulary);
    segment.targets = random_ids(draw, kBatch, kLength, config.vocabulary);
    segment.scored = segment.targets.elements();
  }
  return trial;
}

/// Counts steps, and draws other random numbers from the step `from` on.
class CountingModel final : public Wrapped {
 public:
  CountingModel(const Recurrence& inner, int from) : Wrapped(inner), from_(from) {}
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    return inner_.step(steps++ < from_ ? pass : pass.at("another key"), segment, state);
  }
  mutable int steps = 0;

 private:
  int from_;
};

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("checkpointed_bptt: f64 results are bit-identical to full unrolling") {
    require_bits_of_unrolling(DType::f64);
  }

  TEST_CASE("checkpointed_bptt: f32 results are bit-identical to full unrolling") {
    require_bits_of_unrolling(DType::f32);
  }

  TEST_CASE("layer_replay: the gradients of kept layers, in fewer bytes") {
    Trial kept = even_trial(3, DType::f64);
    Trial replayed = even_trial(3, DType::f64);
    ModelConfig config = kept.config;
    config.layer_replay = true;
    replayed.model = Memformer(config, RngKey{1});
    const std::vector<Parameter> from = kept.model.parameters(), to = replayed.model.parameters();
    for (std::size_t i = 0; i < from.size(); ++i) {
      Parameter parameter = to[i];
      parameter.value().copy_(from[i].value());
    }
    const WindowResult a = mrbp(kept.model, kept.segments, kept.entry, kept.key, {});
    const WindowResult b = mrbp(replayed.model, kept.segments, kept.entry, kept.key, {});
    CHECK(a.loss_sum == b.loss_sum);
    // All parameters together: the gradient of a key's bias is zero but for rounding.
    double difference = 0.0, size = 0.0;
    for (std::size_t i = 0; i < from.size(); ++i) {
      difference += sum_of_squares(sub(to[i].grad(), from[i].grad()));
      size += sum_of_squares(from[i].grad());
    }
    CHECK(std::sqrt(difference) <= 1e-12 * std::sqrt(size));
    CHECK(peak_of(mrbp, replayed) < peak_of(mrbp, kept));
  }

  TEST_CASE(
      "checkpointed_bptt: a cell with a growing state, carried integers and an auxiliary loss "
      "gives the bits of full unrolling") {
    constexpr std::int64_t kBatch = 3, kVocabulary = 7;
    for (const DType dtype : {DType::f64, DType::f32})
      for (int count = 1; count <= kLongestWindow; ++count)
        for (const std::int64_t detach_every : {0, 2}) {
          Draws draw(RngKey{63}.at(static_cast<std::uint64_t>(count)));
          const GrowingCell cell(kVocabulary, 6, draw.key(), dtype);
          perturb(cell.parameters(), draw.key());
          std::vector<Segment> segments;
          for (int t = 0; t < count; ++t) {
            Segment& segment = segments.emplace_back();
            segment.tokens = random_ids(draw, kBatch, draw.between(1, 4), kVocabulary);
            if (t + 1 < count && draw.chance(0.3)) continue;
            segment.targets = random_ids(draw, kBatch, 1, kVocabulary).reshape({kBatch});
            segment.scored = kBatch;
          }
          State entry = cell.initial_state(kBatch);
          entry[0].boundary.detach_every = detach_every;
          const RngKey key = draw.key();
          const Outcome unrolled = run_window(bptt, cell, segments, entry, key);
          const Outcome again = run_window(checkpointed_bptt, cell, segments, entry, key);
          CAPTURE(count);
          CHECK(join(differences(again, unrolled)) == "");
          CHECK(again.result.auxiliary > 0.0);
          CHECK(again.result.states.back()[2].value.dtype() == DType::i32);
        }
  }

  TEST_CASE("checkpointed_bptt: every step runs twice, and a second run unlike the first is seen") {
    // Negative control: with another key in the sweep the losses stay and the gradients do not.
    const Trial trial = even_trial(4, DType::f64);
    const Outcome right = run_window(bptt, trial);
    const auto run = [&](int from) {
      const CountingModel model(trial.model, from);
      const Outcome outcome =
          run_window(checkpointed_bptt, model, trial.segments, trial.entry, trial.key);
      CHECK(model.steps == 8);
      return join(differences(outcome, right));
    };
    CHECK(run(8) == "");
    const std::string named = run(4);
    CHECK(named.find("gradient of writer.value.weight") != std::string::npos);
    CHECK(named.find("loss") == std::string::npos);
    CHECK(named.find("state") == std::string::npos);
  }

  TEST_CASE("checkpointed_bptt: each further segment costs little more than one state") {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const std::int64_t state = bytes_of(even_trial(1, dtype).entry);
      const auto growth = [&](const auto& method) {
        return (peak_of(method, even_trial(12, dtype)) - peak_of(method, even_trial(4, dtype))) / 8;
      };
      // Loss and weight of each segment's loss stay on the tape besides the state.
      CHECK(growth(checkpointed_bptt) >= state);
      CHECK(growth(checkpointed_bptt) <= state + 4 * size_of(dtype));
      CHECK(growth(bptt) > 20 * state);
      CHECK(peak_of(checkpointed_bptt, even_trial(12, dtype)) <
            peak_of(bptt, even_trial(12, dtype)) / 4);
    }
  }

  TEST_CASE("checkpointed_bptt: an observer that keeps the logits is seen in the growth") {
    // Negative control of the measurement above.
    const Trial longer = even_trial(12, DType::f32), shorter = even_trial(4, DType::f32);
    const std::int64_t logits = 4 * 6 * 13 * size_of(DType::f32);
    CHECK(peak_of(hoarding<checkpointed_bptt>, longer) -
              peak_of(hoarding<checkpointed_bptt>, shorter) ==
          peak_of(checkpointed_bptt, longer) - peak_of(checkpointed_bptt, shorter) + 8 * logits);
  }

  TEST_CASE("checkpointed_bptt: anomaly mode names the op, and an empty window is an error") {
    Trial trial = even_trial(2, DType::f64);
    WindowOptions options;
    options.check_finite = true;
    const Outcome plain = run_window(checkpointed_bptt, trial);
    CHECK(join(differences(run_window(checkpointed_bptt, trial, options), plain)) == "");
    for (Parameter& parameter : trial.model.parameters())
      if (parameter.name() == "writer.value.weight")
        parameter.value().fill_(std::numeric_limits<double>::quiet_NaN());
    CHECK_THROWS_WITH_AS(
        checkpointed_bptt(trial.model, trial.segments, trial.entry, trial.key, options),
        doctest::Contains("linear in segment 0/writer"), Error);
    CHECK_THROWS_WITH_AS(checkpointed_bptt(trial.model, {}, trial.entry, trial.key),
                         doctest::Contains("no segments"), Error);
  }
}

}  // namespace mf::test
