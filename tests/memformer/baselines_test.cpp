// What holds for every model behind Recurrence: the baselines and Memformer, one row each.

#include <doctest/doctest.h>

#include <fmt/format.h>

#include <set>

#include "memformer/replay/checkpointed.h"
#include "memformer/replay/truncated.h"
#include "tests/memformer/finite_differences.h"
#include "tests/memformer/token_models.h"

namespace mf::test {
namespace {

/// Fully scored segments of full length, without resets.
TokenTrial plain_trial(RngKey key, const ModelRow& row, std::int64_t count, DType dtype,
                       bool continued = false, std::int64_t batch = 2) {
  Draws draw(key);
  return token_trial(draw, row, dtype, {.batch = batch, .count = count}, continued);
}

/// A window of everything that segments can be; every entry of the state has a rule of its own.
TokenTrial varied_trial(RngKey key, const ModelRow& row, std::int64_t count, DType dtype) {
  Draws draw(key);
  const TokenSegments how{.batch = draw.between(1, 3), .count = count, .vary = true};
  TokenTrial trial = token_trial(draw, row, dtype, how, draw.chance(0.5));
  const std::int64_t first = draw.between(0, 3);
  for (std::size_t i = 0; i < trial.entry.size(); ++i)
    trial.entry[i].boundary.detach_every = (first + static_cast<std::int64_t>(i)) % 4;
  return trial;
}

WindowResult truncated_nowhere(const Recurrence& model, std::span<const Segment> segments,
                               const State& entry, RngKey key, const WindowOptions& options) {
  return truncated_bptt(model, segments, entry, key, static_cast<std::int64_t>(segments.size()) + 1,
                        options);
}

Tensor pick_rows(const Tensor& x, const std::vector<std::int64_t>& rows) {
  std::vector<Tensor> parts;
  for (const std::int64_t row : rows) parts.push_back(x.slice(0, row, row + 1));
  return concat(parts, 0);
}

std::vector<Segment> pick_rows(std::vector<Segment> segments,
                               const std::vector<std::int64_t>& rows) {
  for (Segment& segment : segments) {
    for (Tensor* const part :
         {&segment.tokens, &segment.decoder_inputs, &segment.targets, &segment.reset})
      if (part->defined()) *part = pick_rows(*part, rows);
    segment.scored = segment.targets.elements();
  }
  return segments;
}

State pick_rows(State state, const std::vector<std::int64_t>& rows) {
  for (auto& part : state) part.value = pick_rows(part.value, rows);
  return state;
}

void set_token(Tensor& tokens, std::int64_t row, std::int64_t place, std::int32_t id) {
  tokens = tokens.clone();
  tokens.mutable_data<std::int32_t>()[row * tokens.size(1) + place] = id;
}

bool same_at(const std::vector<Tensor>& a, const std::vector<Tensor>& b, std::size_t segment,
             std::int64_t row, std::int64_t begin, std::int64_t end) {
  const auto part = [&](const Tensor& x) {
    return x.slice(0, row, row + 1).slice(1, begin, end).contiguous();
  };
  return identical(part(a[segment]), part(b[segment]));
}

/// Where a changed token shows: before it in time or in other rows (it must not), at or behind it
/// in its segment, in later segments.
struct Reach {
  bool earlier = false, own = false, later = false;
};

Reach reach_of_a_token(const Recurrence& model, const TokenTrial& trial) {
  const std::vector<Tensor> before = outputs_of(model, trial.segments, trial.entry);
  Reach reach;
  const auto batch = trial.segments.front().batch();
  for (std::size_t t = 0; t < trial.segments.size(); ++t)
    for (std::int64_t place = 0; place < kTokenSegment; ++place) {
      std::vector<Segment> changed = trial.segments;
      const std::int64_t row = place % batch;
      const std::int32_t id = changed[t].tokens.to_vector<std::int32_t>()[static_cast<std::size_t>(
          row * kTokenSegment + place)];
      set_token(changed[t].tokens, row, place, (id + 1) % kTokenVocabulary);
      const std::vector<Tensor> after = outputs_of(model, changed, trial.entry);
      for (std::size_t s = 0; s < before.size(); ++s)
        for (std::int64_t b = 0; b < batch; ++b) {
          const std::int64_t border = s < t || b != row ? kTokenSegment : s == t ? place : 0;
          reach.earlier |= !same_at(after, before, s, b, 0, border);
          const bool behind = !same_at(after, before, s, b, border, kTokenSegment);
          if (b == row && s == t) reach.own |= behind;
          if (b == row && s > t) reach.later |= behind;
        }
    }
  return reach;
}

/// Reads in every place the token behind it.
class Peeking final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    Segment ahead = segment;
    const Tensor& x = segment.tokens;
    const std::vector<Tensor> parts{x.slice(1, 1, x.size(1)), x.slice(1, 0, 1)};
    ahead.tokens = concat(parts, 1);
    return inner_.step(pass, ahead, state);
  }
};

/// Every row reads the first row's tokens.
class MixingRows final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    return inner_.next_state(pass, mixed(segment), state);
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    return inner_.step(pass, mixed(segment), state);
  }

 private:
  static Segment mixed(Segment segment) {
    const std::vector<std::int64_t> first(static_cast<std::size_t>(segment.batch()), 0);
    segment.tokens = pick_rows(segment.tokens, first);
    return segment;
  }
};

/// Does not see that a document starts.
class NeverReset final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    return inner_.next_state(pass, without(segment), state);
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    return inner_.step(pass, without(segment), state);
  }

 private:
  static Segment without(Segment segment) {
    segment.reset = Tensor{};
    return segment;
  }
};

/// What of batch independence fails: outputs, loss, gradients; "" if nothing does.
std::string row_dependence(const Recurrence& model, const TokenTrial& trial) {
  const std::vector<Tensor> all = outputs_of(model, trial.segments, trial.entry);
  const auto run = [&](const std::vector<std::int64_t>& rows) {
    WindowOptions options;
    options.mode = Mode::eval;
    options.scale = LossScale::sum;
    return run_window(mrbp, model, pick_rows(trial.segments, rows), pick_rows(trial.entry, rows),
                      trial.key, options);
  };
  std::string wrong;
  for (const std::vector<std::int64_t>& rows : {std::vector<std::int64_t>{2, 0, 1}, {1}, {2, 0}}) {
    const std::vector<Tensor> some =
        outputs_of(model, pick_rows(trial.segments, rows), pick_rows(trial.entry, rows));
    for (std::size_t t = 0; t < all.size(); ++t)
      if (!identical(some[t], pick_rows(all[t], rows)))
        wrong += fmt::format("outputs of segment {} with {} rows; ", t, rows.size());
  }
  const Outcome straight = run({0, 1, 2}), permuted = run({2, 0, 1});
  if (gradient_difference(permuted, straight) > 1e-12)
    wrong += fmt::format("gradients, by {:.1e}; ", gradient_difference(permuted, straight));
  return wrong;
}

std::int64_t hoarding_peak(const TokenTrial& trial) {
  return peak_of(hoarding<mrbp>, *trial.model, trial.segments, trial.entry, trial.key);
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE(
      "models: MRBP = BPTT bit for bit over 1..8 segments, with detach switches and auxiliary "
      "losses") {
    std::set<std::int64_t> rules;
    int with_auxiliary = 0, partly_reset = 0, unscored = 0;
    for (const ModelRow& row : model_rows())
      for (const DType dtype : {DType::f32, DType::f64})
        for (std::int64_t count = 1; count <= 8; ++count) {
          const RngKey key =
              RngKey{81}.at(row.title).at(name_of(dtype)).at(static_cast<std::uint64_t>(count));
          const TokenTrial trial = varied_trial(key, row, count, dtype);
          const Outcome unrolled = run_window(bptt, trial);
          const auto require = [&](const char* what, const Outcome& outcome) {
            const std::vector<std::string> wrong = differences(outcome, unrolled);
            CHECK_MESSAGE(wrong.empty(), row.title << ", " << name_of(dtype) << ", " << count
                                                   << " segments, " << what << ": " << join(wrong));
          };
          for (const int threads : {1, 2}) {
            const ThreadScope scope(threads);
            require("mrbp", run_window(mrbp, trial));
          }
          require("checkpointed", run_window(checkpointed_bptt, trial));
          require("truncated", run_window(truncated_nowhere, trial));
          for (const auto& part : trial.entry) rules.insert(part.boundary.detach_every);
          if (!row.has_auxiliary) CHECK(unrolled.result.auxiliary == 0.0);
          with_auxiliary += unrolled.result.auxiliary > 0.0 ? 1 : 0;
          for (const Segment& segment : trial.segments) {
            unscored += segment.targets.defined() ? 0 : 1;
            if (!segment.reset.defined()) continue;
            const double reset = sum(segment.reset.to(DType::f64)).item();
            partly_reset += reset > 0.0 && reset < static_cast<double>(segment.batch()) ? 1 : 0;
          }
        }
    CHECK(rules == std::set<std::int64_t>{0, 1, 2, 3});
    CHECK(with_auxiliary >= 20);
    CHECK(partly_reset >= 20);
    CHECK(unscored >= 20);
  }

  TEST_CASE("models: MRBP without the seed of the next state is told from BPTT in every model") {
    for (const ModelRow& row : model_rows()) {
      CAPTURE(row.title);
      const TokenTrial trial = plain_trial(RngKey{82}, row, 4, DType::f64, true);
      const Outcome right = run_window(bptt, trial);
      const Outcome wrong =
          run_window(mrbp, WithoutSeed(*trial.model), trial.segments, trial.entry, trial.key);
      const std::string named = join(differences(wrong, right));
      CHECK((named != "") == (row.carries != Carries::nothing));
      CHECK(named.find("loss") == std::string::npos);
      // The auxiliary loss is there wherever the row says so.
      CHECK((right.result.auxiliary > 0.0) == row.has_auxiliary);
    }
  }

  TEST_CASE("models: gradients through 3 segments equal finite differences") {
    constexpr Gate kGate{.absolute = 1e-8, .relative = 1e-7, .directions = 8, .coordinates = 8};
    double worst = 0.0;
    int refused = 0, carrying = 0;
    for (const ModelRow& row : model_rows()) {
      if (!row.exact) continue;  // the auxiliary loss has a test of its own
      CAPTURE(row.title);
      TokenTrial trial = plain_trial(RngKey{83}, row, 3, DType::f64, true);
      const auto compared = [&](const Outcome& outcome) {
        return compare(*trial.model, trial.segments, trial.entry, trial.key, outcome, RngKey{84},
                       kGate);
      };
      const Outcome outcome = run_window(mrbp, trial);
      const Tally tally = compared(outcome);
      CHECK_MESSAGE(tally.failures.empty(), tally.failures);
      CHECK(tally.checked == 16);
      worst = std::max(worst, tally.worst);
      // Negative control: without the gradient through the boundaries.
      if (row.carries == Carries::nothing) continue;
      ++carrying;
      TokenTrial cut{std::move(trial.model), trial.segments,
                     with_boundary(trial.entry, Boundary{1}), trial.key};
      const Outcome detached = run_window(mrbp, cut);
      trial.model = std::move(cut.model);
      refused += compared(detached).failures.empty() ? 0 : 1;
    }
    fmt::print("models against finite differences: the worst at {:.3f} of the gate\n", worst);
    CHECK(refused == carrying);
  }

  TEST_CASE("models: no output before a changed token moves by a bit, and some behind it do") {
    for (const ModelRow& row : model_rows()) {
      if (!row.causal) continue;
      CAPTURE(row.title);
      const TokenTrial trial = plain_trial(RngKey{85}, row, 3, DType::f32);
      const Reach reach = reach_of_a_token(*trial.model, trial);
      CHECK(!reach.earlier);
      CHECK(reach.own);
      CHECK(reach.later == (row.carries == Carries::text));
      CHECK(reach_of_a_token(Peeking(*trial.model), trial).earlier);
    }
  }

  TEST_CASE("models: permuting or dropping rows permutes or drops results and nothing else") {
    for (const ModelRow& row : model_rows()) {
      CAPTURE(row.title);
      const TokenTrial trial = plain_trial(RngKey{86}, row, 3, DType::f64, true, 3);
      CHECK(row_dependence(*trial.model, trial) == "");
      CHECK(row_dependence(MixingRows(*trial.model), trial) != "");
    }
  }

  TEST_CASE("models: detached at every boundary, gradients are the sums of each segment's own") {
    for (const ModelRow& row : model_rows()) {
      CAPTURE(row.title);
      TokenTrial trial = plain_trial(RngKey{87}, row, 4, DType::f64, true);
      WindowOptions options;
      options.scale = LossScale::sum;
      const Outcome whole = run_window(mrbp, trial, options);
      const Outcome cut = run_window(mrbp, *trial.model, trial.segments,
                                     with_boundary(trial.entry, Boundary{1}), trial.key, options);
      // Newest first, so that the sums have the same bits.
      std::vector<Parameter> parameters = trial.model->parameters();
      zero_grad(parameters);
      for (std::size_t t = trial.segments.size(); t-- > 0;) {
        Tape tape;
        const StepResult step =
            trial.model->step(Pass{tape, trial.key.at(t), Mode::train, {}}, trial.segments[t],
                              constants_of(cut.result.states[t]));
        std::vector<Seed> seeds{{step.loss, scalar(1.0, DType::f64)}};
        if (step.auxiliary.on_tape()) seeds.push_back({step.auxiliary, scalar(1.0, DType::f64)});
        tape.backward(seeds);
      }
      bool differs = false;
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        CHECK_MESSAGE(identical(parameters[i].grad(), cut.gradients[i].second),
                      cut.gradients[i].first);
        differs |= !identical(parameters[i].grad(), whole.gradients[i].second);
      }
      zero_grad(parameters);
      CHECK(differs == (row.carries == Carries::text));
    }
  }

  TEST_CASE("models: behind a full state each further segment costs mrbp exactly one state") {
    int measured = 0;
    for (const ModelRow& row : model_rows())
      for (const DType dtype : {DType::f32, DType::f64})
        for (const std::int64_t batch : {1, 3}) {  // rows of a batch of one are views more often
          constexpr std::int64_t kShort = 3, kLong = 8;
          if (!row.fills) continue;
          CAPTURE(row.title);
          CAPTURE(batch);
          const TokenTrial shorter = plain_trial(RngKey{88}, row, kShort, dtype, true, batch);
          const TokenTrial longer = plain_trial(RngKey{88}, row, kLong, dtype, true, batch);
          REQUIRE(bytes_of(state_after(*longer.model, longer.segments, longer.entry, longer.key)) ==
                  bytes_of(longer.entry));
          const std::int64_t state = bytes_of(longer.entry);
          const auto peak = [](WindowMethod method, const TokenTrial& trial) {
            return peak_of(method, *trial.model, trial.segments, trial.entry, trial.key);
          };
          CHECK(peak(mrbp, longer) - peak(mrbp, shorter) == (kLong - kShort) * state);
          CHECK(peak(bptt, longer) - peak(bptt, shorter) > (kLong - kShort) * 2 * state);
          // Negative control: an observer that keeps the logits. The peak may be in another segment
          // then, with one logit tensor less.
          const std::int64_t logits = batch * kTokenSegment * kTokenVocabulary * size_of(dtype);
          CHECK(hoarding_peak(longer) - hoarding_peak(shorter) >
                (kLong - kShort) * (state + logits) - logits);
          ++measured;
        }
    CHECK(measured == 4 * (static_cast<int>(model_rows().size()) - 1));
  }

  TEST_CASE("models: a row that is reset goes on as from a fresh start, and the others as before") {
    constexpr std::size_t kReset = 2;
    for (const ModelRow& row : model_rows()) {
      CAPTURE(row.title);
      TokenTrial trial = plain_trial(RngKey{89}, row, 5, DType::f64, true, 3);
      const std::vector<Tensor> unbroken = outputs_of(*trial.model, trial.segments, trial.entry);
      trial.segments[kReset].reset = from_host<std::uint8_t>({0, 1, 0}, {3});
      const std::span<const Segment> tail = std::span(trial.segments).subspan(kReset);
      std::vector<Segment> started(tail.begin(), tail.end());
      started.front().reset = full({3}, 1, DType::u8);
      const std::vector<Tensor> fresh =
          outputs_of(*trial.model, started, trial.model->initial_state(3));
      const auto mistakes = [&](const Recurrence& model) {
        int count = 0;
        const std::vector<Tensor> outputs = outputs_of(model, trial.segments, trial.entry);
        for (std::size_t t = 0; t < outputs.size(); ++t)
          for (const std::int64_t b : {0, 1, 2}) {
            const bool anew = b == 1 && t >= kReset;
            const Tensor wanted = pick_rows(anew ? fresh[t - kReset] : unbroken[t], {b});
            const Tensor found = pick_rows(outputs[t], {b});
            const bool right = !anew || row.same_bits_afresh
                                   ? identical(found, wanted)
                                   : relative_difference(found, wanted) <= 1e-12;
            count += right ? 0 : 1;
          }
        return count;
      };
      CHECK(mistakes(*trial.model) == 0);
      CHECK((mistakes(NeverReset(*trial.model)) > 0) == (row.carries == Carries::text));
    }
  }

  TEST_CASE("models: no gradient passes a row's reset, and that of the other rows does") {
    constexpr std::size_t kReset = 1;
    for (const ModelRow& row : model_rows())
      for (const bool watched : {true, false}) {
        CAPTURE(row.title);
        TokenTrial trial = plain_trial(RngKey{90}, row, 4, DType::f64, true, 3);
        trial.segments[kReset].reset = from_host<std::uint8_t>({0, 1, 0}, {3});
        for (std::size_t t = 0; t < kReset; ++t) {
          trial.segments[t].targets = trial.segments[t].decoder_inputs = Tensor{};
          trial.segments[t].scored = 0;
        }
        const NeverReset never(*trial.model);
        const Recurrence& model = watched ? *trial.model : static_cast<const Recurrence&>(never);
        const Outcome outcome = run_window(mrbp, model, trial.segments, trial.entry, trial.key);
        double reset = 0.0, kept = 0.0;
        for (const auto& part : outcome.result.entry_gradient) {
          if (!part.value.defined()) continue;
          reset += sum_of_squares(pick_rows(part.value, {1}));
          kept += sum_of_squares(pick_rows(part.value, {0, 2}));
        }
        const bool carries = row.carries != Carries::nothing;
        CHECK((kept > 0.0) == carries);
        CHECK((reset > 0.0) == (carries && !watched));
      }
  }
}

}  // namespace mf::test
