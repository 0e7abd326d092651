// The trace of a window: what it says is so, and it says so where something is not.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "memformer/audit/trace.h"
#include "tests/memformer/small_audit_model.h"
#include "tests/support.h"

namespace mf::test {
namespace {

using doctest::Contains;

double norm(const State& state) { return std::sqrt(sum_of_squares(state.front().value)); }

/// The claims that fail, by the words they begin with: "each recomputed, losses,".
std::string failing(const WindowTrace& trace) {
  std::vector<std::string> names;
  for (const TraceCheck& check : trace.checks)
    if (!check.failure.empty()) names.push_back(check.claim.substr(0, check.claim.find(' ', 7)));
  return join(names);
}

/// Traces a model of which `Changed` changes a part, with mrbp's own check off.
template <class Changed>
WindowTrace trace_changed() {
  const Memformer model(small_audit_model(DType::f64), RngKey{21});
  const AuditInputs inputs = audit_inputs(model, 4, 2, 5);
  WindowOptions options;
  options.check_replay = false;
  return trace_window(Changed(model), model, inputs, options);
}

struct KeepsLogits : Wrapped {
  using Wrapped::Wrapped;
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result = inner_.step(pass, segment, state);
    hoard.push_back(result.outputs.value);
    return result;
  }
  mutable std::vector<Tensor> hoard;
};

struct LeavesTensors : Wrapped {
  using Wrapped::Wrapped;
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    left = full({100000}, 1.0, DType::f32);
    return inner_.step(pass, segment, state);
  }
  mutable Tensor left;
};

struct RunsAnotherOp : Wrapped {
  using Wrapped::Wrapped;
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    LiveState scaled = state;
    scaled.front().value = scale(state.front().value, 1.0);
    return inner_.step(pass, segment, scaled);
  }
};

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("trace: every claim holds for random models and windows") {
    Draws draw(RngKey{71});
    for (int i = 0; i < 20; ++i) {
      const ModelConfig config = random_config(draw, i % 2 ? DType::f64 : DType::f32);
      CAPTURE(to_json(config));
      const Memformer model(config, draw.key());
      TraceOptions options;
      options.segments = draw.between(1, 6);
      options.batch = draw.between(1, 3);
      options.seed = static_cast<std::uint64_t>(i);
      const WindowTrace trace = trace_mrbp(model, options);
      CHECK(failing(trace) == "");
      CHECK(trace.holds());
      CHECK(trace.checks.size() == 9);
      CHECK(std::ssize(trace.rows) == 5 * options.segments + 2);
    }
  }

  TEST_CASE("trace: its rows are the lines of Algorithm 1, with the numbers of the window") {
    const Memformer model(small_audit_model(DType::f64), RngKey{22});
    const AuditInputs inputs = audit_inputs(model, 3, 2, 5);
    const WindowTrace trace = trace_window(model, model, inputs);
    std::vector<std::pair<ReplayLine, std::int64_t>> lines;
    for (const TraceRow& row : trace.rows) lines.emplace_back(row.line, row.segment);
    using enum ReplayLine;
    CHECK(lines == std::vector<std::pair<ReplayLine, std::int64_t>>{{keep_entry, 0},
                                                                    {write_memory, 0},
                                                                    {write_memory, 1},
                                                                    {absent_gradient, 2},
                                                                    {fresh_leaf, 2},
                                                                    {recompute, 2},
                                                                    {sweep, 2},
                                                                    {hand_back, 2},
                                                                    {fresh_leaf, 1},
                                                                    {recompute, 1},
                                                                    {sweep, 1},
                                                                    {hand_back, 1},
                                                                    {fresh_leaf, 0},
                                                                    {recompute, 0},
                                                                    {sweep, 0},
                                                                    {hand_back, 0},
                                                                    {hand_out, 0}});

    const Outcome outcome = run_window(mrbp, model, inputs.segments, inputs.entry, inputs.draws);
    const WindowResult& result = outcome.result;
    for (const TraceRow& row : trace.rows) {
      const auto t = static_cast<std::size_t>(row.segment);
      CAPTURE(name_of(row.line));
      CAPTURE(t);
      CHECK(row.reset_rows == (t == 1 ? 1 : 0));  // a document starts in the middle
      if (row.line != recompute) continue;
      CHECK(row.loss == result.segment_losses[t]);
      CHECK(row.state_in == norm(result.states[t]));
      CHECK(row.state_out == norm(result.states[t + 1]));
      CHECK(row.same_bits.has_value() == (t < 2));
      CHECK(row.kept == 4);
      CHECK(row.gradient_in.has_value() == (t < 2));
      std::int64_t entries = 0, saved = 0;
      for (const TapePart& part : row.parts) {
        entries += part.entries;
        saved += part.saved_bytes;
        CHECK(part.memory_path ==
              (part.name != "decoder" && part.name != "output" && part.name != "loss"));
      }
      CHECK(entries == row.entries);
      CHECK(saved == row.saved_bytes);
    }
    // The last segment's memory is kept, the others' are compared.
    const auto lines_of = [](const TraceRow& row) {
      std::string text;
      for (const ListingLine& line : algorithm_listing())
        if (ran(line, row)) text += line.text;
      return text;
    };
    CHECK(lines_of(trace.rows[5]).find("kept(step.next)") != std::string::npos);
    CHECK(lines_of(trace.rows[5]).find("require_same_bits") == std::string::npos);
    CHECK(lines_of(trace.rows[9]).find("kept(step.next)") == std::string::npos);
    CHECK(lines_of(trace.rows[9]).find("require_same_bits") != std::string::npos);
    CHECK(lines_of(trace.rows[9]).find("seeds") == std::string::npos);

    const TraceRow& absent = trace.rows[3];
    CHECK(absent.knows_gradient);
    CHECK_FALSE(absent.gradient_in);
    CHECK(absent.kept == 3);
    CHECK(trace.rows.back().gradient_out == norm(result.entry_gradient));
    CHECK_FALSE(trace.rows.front().knows_gradient);
    // Nothing but the kept memories is live behind the first pass.
    CHECK(absent.live_bytes == 2 * bytes_of(inputs.entry));
    CHECK(absent.by_category[static_cast<std::size_t>(Category::state)] == absent.live_bytes);
    CHECK(trace.rows[5].live_bytes > absent.live_bytes);
    CHECK(trace.rows[6].saved_bytes == 0);
  }

  TEST_CASE("trace: a replay with another key is found, and where") {
    const Memformer model(small_audit_model(DType::f32), RngKey{23});
    const WindowTrace trace = trace_mrbp(model, {.wrong_replay_key = true});
    CHECK_FALSE(trace.holds());
    CHECK(failing(trace) == "each recomputed, losses,");
    for (const TraceRow& row : trace.rows)
      if (row.same_bits) CHECK(*row.same_bits == (row.segment != 1));
    const auto bits = std::ranges::find_if(
        trace.checks, [](const TraceCheck& check) { return check.claim.starts_with("each rec"); });
    CHECK(bits->failure.starts_with("segment 1: 'memory' of M_2 differs at element "));

    ModelConfig no_draws = small_audit_model(DType::f32);
    no_draws.dropout = no_draws.attention_dropout = 0.0;
    CHECK_THROWS_WITH_AS(trace_mrbp(Memformer(no_draws, RngKey{1}), {.wrong_replay_key = true}),
                         Contains("no dropout"), Error);
  }

  TEST_CASE("trace: planted faults are told apart by the claims that they break") {
    CHECK(failing(trace_changed<Wrapped>()) == "");
    CHECK(failing(trace_changed<WithoutSeed>()) == "what segment, losses,");
    CHECK(failing(trace_changed<KeepsLogits>()) == "one tape");
    CHECK(failing(trace_changed<LeavesTensors>()) == "one tape, behind a");
    CHECK(failing(trace_changed<RunsAnotherOp>()) == "a replayed");
  }

  TEST_CASE("trace: watching is refused beside another observer, and ends with the trace") {
    const Memformer model(small_audit_model(DType::f32), RngKey{24});
    const OpObserver nothing = [](const OpEvent&) {};
    observe_ops(nothing);
    CHECK_THROWS_WITH_AS(trace_mrbp(model, {}), Contains("ops are observed already"), Error);
    CHECK((observe_ops(nullptr) == nothing));
    CHECK(trace_mrbp(model, {}).holds());
    CHECK((observe_ops(nullptr) == nullptr));
  }

  TEST_CASE("trace: every line of Algorithm 1 has words and code in the listing, in order") {
    int last = -1;
    for (int line = 0; line <= static_cast<int>(ReplayLine::hand_out); ++line) {
      int words = 0, code = 0;
      for (const ListingLine& listed : algorithm_listing())
        if (listed.line == static_cast<ReplayLine>(line)) ++(listed.code ? code : words);
      CAPTURE(line);
      CHECK(words > 0);
      CHECK(code > 0);
    }
    for (const ListingLine& listed : algorithm_listing()) {
      CHECK(static_cast<int>(listed.line) >= last);
      last = static_cast<int>(listed.line);
    }
  }
}

}  // namespace mf::test
