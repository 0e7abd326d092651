#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>

#include "memformer/audit/mrbp_audit.h"
#include "memformer/audit/process_memory.h"
#include "memformer/audit/summary.h"
#include "memformer/replay/sweep.h"
#include "tests/memformer/small_audit_model.h"
#include "tests/support.h"

using namespace mf;
using doctest::Contains;

namespace {

/// Multiply-adds of one step, from the shapes of the ops it recorded: a second way to count them.
MultiplyAdds counted(const ModelConfig& config) {
  const Memformer model(config, RngKey{1});
  const std::vector<Segment> segments = random_window(config, 1, 1, RngKey{2});
  Tape tape;
  const Pass pass{tape, RngKey{3}, Mode::eval, {}};
  std::vector<Seed> seeds;
  const StepResult step =
      model.step(pass, segments.front(), leaves_of(tape, model.initial_state(1)));
  add_loss_seeds(seeds, step, 1.0);

  std::map<std::string, std::int64_t> weight_elements;
  for (const Parameter& parameter : model.parameters())
    weight_elements[parameter.name()] = parameter.value().elements();
  std::map<std::int32_t, Shape> shapes;
  MultiplyAdds counts;
  for (const TapeReport::Row& row : tape.report().rows) {
    const Shape& out = row.shapes.front();
    for (std::size_t i = 0; i < row.shapes.size(); ++i)
      shapes[row.output + static_cast<std::int32_t>(i)] = row.shapes[i];
    std::int64_t count = 0;
    if (row.op == "linear") {
      count = out.elements() * config.width;
    } else if (row.op == "projections") {
      for (const Shape& result : row.shapes) count += result.elements() * config.width;
    } else if (row.op == "feed_forward") {
      count = 2 * out.elements() * config.feed_forward;
    } else if (row.op == "matmul") {
      count = out.elements() * shapes.at(row.inputs[0])[-1];
    } else if (row.op == "attention") {
      const Shape &query = shapes.at(row.inputs[0]), &key = shapes.at(row.inputs[1]);
      const bool has_own = row.inputs.size() > 4;  // after query, key, value and perhaps a bias
      count = 2 * query.elements() * (key[2] + (has_own ? 1 : 0));
    }
    const bool predicts =
        row.module.starts_with("decoder") || row.module.starts_with("output") || row.module.empty();
    (predicts ? counts.prediction : counts.memory_path) += count;
  }
  return counts;
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("audit: MRBP is bit-identical to BPTT and grows by one memory a segment") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Memformer model(test::small_audit_model(dtype), RngKey{1});
    const AuditReport report =
        audit_mrbp(model, {.segments = {1, 3, 4, 12}, .batch = 2, .seed = 5, .repeats = 1});
    CHECK(report.identical());
    CHECK(report.state_bytes == 2 * memory_bytes_per_row(model.config()));
    for (std::size_t i = 0; i < report.windows.size(); ++i) {
      const AuditedWindow& window = report.windows[i];
      CHECK(window.mrbp.largest_relative_error == 0.0);
      CHECK(window.mrbp.cosine == doctest::Approx(1.0));
      CHECK(window.mrbp.seconds > 0.0);
      if (i >= 2) CHECK(report.mrbp_growth(i) == static_cast<double>(report.state_bytes));
    }
    CHECK(report.windows[0].truncated.empty());
    CHECK(report.windows[3].bptt.peak_bytes > 4 * report.windows[3].mrbp.peak_bytes);
  }
}

TEST_CASE("audit: forward runs are counted, and work follows from them") {
  const Memformer model(test::small_audit_model(DType::f32), RngKey{1});
  const AuditReport report =
      audit_mrbp(model, {.segments = {2, 5}, .batch = 2, .seed = 5, .repeats = 1});
  const AuditedWindow& window = report.windows[1];
  CHECK((window.bptt.runs.memory_path == 5 && window.bptt.runs.prediction == 5));
  CHECK((window.mrbp.runs.memory_path == 9 && window.mrbp.runs.prediction == 5));
  CHECK((window.checkpointed.runs.memory_path == 10 && window.checkpointed.runs.prediction == 10));
  CHECK((window.truncated[0].pass.runs.memory_path == 5));
  CHECK(window.checkpointed.differing.empty());
  CHECK(report.multiply_adds.total() == multiply_adds(model.config()).total());

  const CostModel costs = cost_model(report);
  const auto work = [&](const AuditedPass& pass) {
    return static_cast<double>(pass.runs.work(report.multiply_adds, 5));
  };
  CHECK(work(window.mrbp) / work(window.bptt) == doctest::Approx(costs.mrbp_work(5)));
  CHECK(work(window.checkpointed) / work(window.bptt) == doctest::Approx(4.0 / 3.0));
  CHECK(costs.bptt_bytes(5) - costs.bptt_bytes(2) ==
        window.bptt.peak_bytes - report.windows[0].bptt.peak_bytes);
  CHECK(costs.replay_bytes(5) - costs.replay_bytes(4) == report.state_bytes);
  CHECK_THROWS_WITH_AS(
      cost_model(audit_mrbp(model, {.segments = {2}, .batch = 1, .seed = 5, .repeats = 1})),
      Contains("1 windows were audited"), Error);
}

TEST_CASE("audit: each parameter is compared with full unrolling's") {
  const Memformer model(test::small_audit_model(DType::f64), RngKey{2});
  const AuditReport report =
      audit_mrbp(model, {.segments = {8}, .batch = 2, .seed = 5, .repeats = 1});
  const AuditedWindow& window = report.windows.front();
  CHECK(window.mrbp.parameters.size() == model.parameters().size());
  for (const AuditedParameter& parameter : window.mrbp.parameters) {
    CHECK(parameter.identical);
    CHECK((parameter.absolute_error == 0.0 && parameter.relative_error == 0.0));
    CHECK(parameter.cosine == doctest::Approx(1.0));
  }
  std::int64_t differing = 0;
  for (const AuditedParameter& parameter : window.truncated.front().pass.parameters)
    if (!parameter.identical) {
      ++differing;
      CHECK(parameter.absolute_error > 0.0);
    }
  CHECK(differing > 5);
  CHECK(differing <
        static_cast<std::int64_t>(window.mrbp.parameters.size()));  // the decoder's agree
}

TEST_CASE("audit: the process's peak is what was resident for a while, where the system tells") {
  const ProcessPeak peak;
  constexpr std::size_t kBytes = 64 << 20;
  { const std::vector<char> touched(kBytes, 'x'); }
  const std::optional<std::int64_t> growth = peak.growth();
  if (!growth) {
    MESSAGE("this system does not let the counter be reset");
    return;
  }
  CHECK(*growth >= static_cast<std::int64_t>(kBytes) * 9 / 10);
  CHECK(*ProcessPeak().growth() < static_cast<std::int64_t>(kBytes) / 2);
}

TEST_CASE("audit: truncation loses part of the gradient, and the audit says how much") {
  const Memformer model(test::small_audit_model(DType::f64), RngKey{2});
  const AuditReport report =
      audit_mrbp(model, {.segments = {2, 8}, .batch = 2, .seed = 5, .repeats = 1});
  REQUIRE(report.windows[0].truncated.size() == 1);  // half of 2 is 1
  REQUIRE(report.windows[1].truncated.size() == 2);
  CHECK(report.windows[1].truncated[1].length == 4);
  for (const AuditedWindow& window : report.windows)
    for (const TruncatedPass& truncated : window.truncated) {
      CHECK_FALSE(truncated.pass.differing.empty());
      CHECK(truncated.pass.largest_relative_error > 1e-3);
      CHECK((truncated.pass.cosine > 0.0 && truncated.pass.cosine < 0.9999));
    }
}

TEST_CASE("audit: a dropped state seed is found, and what it spoils is named") {
  const Memformer model(test::small_audit_model(DType::f32), RngKey{3});
  const AuditReport report = audit_mrbp(model, {.segments = {1, 2, 4},
                                                .batch = 2,
                                                .seed = 5,
                                                .repeats = 1,
                                                .fault = PlantedFault::drop_state_seed});
  CHECK_FALSE(report.identical());
  CHECK(report.windows[0].mrbp.differing.empty());  // there is no seed to drop
  for (const std::size_t i : {1u, 2u}) {
    const AuditedPass& pass = report.windows[i].mrbp;
    const std::string names = test::join(pass.differing);
    CHECK(names.find("gradient of writer.query.weight") != names.npos);
    CHECK(names.find("gradient of encoder.layers.0.memory_attention.key.weight") != names.npos);
    CHECK(names.find("gradient of the entry memory") != names.npos);
    CHECK(names.find("decoder.") == names.npos);  // no gradient crosses it
    CHECK(names.find("losses") == names.npos);
    CHECK(pass.cosine < 0.9999);
    CHECK(pass.largest_relative_error > 0.1);
  }
}

TEST_CASE("audit: a model without memory, and one without decoder, can be audited") {
  ModelConfig no_memory = test::small_audit_model(DType::f64);
  no_memory.slots = 0;
  ModelConfig no_decoder = test::small_audit_model(DType::f64);
  no_decoder.architecture = Architecture::encoder_only;
  for (const ModelConfig& config : {no_memory, no_decoder}) {
    const Memformer model(config, RngKey{4});
    CHECK(audit_mrbp(model, {.segments = {1, 4}, .batch = 2, .seed = 5, .repeats = 1}).identical());
  }
}

TEST_CASE("audit: weights stay and gradients are left empty") {
  const Memformer model(test::small_audit_model(DType::f32), RngKey{5});
  std::vector<Tensor> before;
  for (const Parameter& parameter : model.parameters()) before.push_back(parameter.value().clone());
  audit_mrbp(model, {.segments = {3}, .batch = 1, .seed = 5, .repeats = 2});
  std::size_t i = 0;
  for (const Parameter& parameter : model.parameters()) {
    CHECK(first_difference(parameter.value(), before[i++]) < 0);
    CHECK_FALSE(parameter.grad().defined());
  }
}

TEST_CASE("audit: windows that make no sense are refused") {
  const Memformer model(test::small_audit_model(DType::f32), RngKey{6});
  const auto audit = [&](std::vector<std::int64_t> segments, std::int64_t batch,
                         std::int64_t repeats) {
    AuditOptions options;
    options.segments = std::move(segments);
    options.batch = batch;
    options.repeats = repeats;
    audit_mrbp(model, options);
  };
  CHECK_THROWS_WITH_AS(audit({}, 1, 1), Contains("no window is given"), Error);
  CHECK_THROWS_WITH_AS(audit({0}, 1, 1), Contains("window 1 has 0 segments"), Error);
  CHECK_THROWS_WITH_AS(audit({2, 2}, 1, 1), Contains("window 2 has 2 segments"), Error);
  CHECK_THROWS_WITH_AS(audit({1}, 0, 1), Contains("batch is 0"), Error);
  CHECK_THROWS_WITH_AS(audit({1}, 1, 0), Contains("repeats is 0"), Error);
  ModelConfig one_token = test::small_audit_model(DType::f32);
  one_token.vocabulary = 1;
  CHECK_THROWS_WITH_AS(random_window(one_token, 1, 1, RngKey{1}), Contains("vocabulary is 1"),
                       Error);
}

TEST_CASE("summary: multiply-adds are those of the recorded ops") {
  test::Draws draw(RngKey{20});
  test::Coverage coverage;
  for (int i = 0; i < 60; ++i) {
    ModelConfig config = test::random_config(draw, DType::f64);
    config.layer_replay = false;  // it hides the ops of a layer in one entry
    CAPTURE(to_json(config));
    coverage.add(config);
    const MultiplyAdds closed_form = multiply_adds(config), from_tape = counted(config);
    REQUIRE(closed_form.memory_path == from_tape.memory_path);
    REQUIRE(closed_form.prediction == from_tape.prediction);
  }
  auto switches = test::all_switches();
  for (const char* of_windows : {"padding", "unscored segment", "reset inside", "layer_replay"})
    switches.erase(of_windows);
  CHECK(coverage.missing(switches) == "");
}

TEST_CASE("summary: replaying costs one memory path on top of three forward passes") {
  MultiplyAdds counts;
  counts.memory_path = 30;
  counts.prediction = 70;
  CHECK(counts.replay_ratio() == doctest::Approx(330.0 / 300.0));
}

TEST_CASE("summary: statistics leave out what is not finite, and count it") {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Statistics s = statistics_of(from_host({1.0, nan, 4.0, infinity, -2.0, -infinity}, {2, 3}));
  CHECK(s.mean == doctest::Approx(1.0));
  CHECK(s.deviation == doctest::Approx(std::sqrt(6.0)));
  CHECK(s.minimum == -2.0);
  CHECK(s.maximum == 4.0);
  CHECK(s.nan == 1);
  CHECK(s.infinite == 2);
  const Statistics ids = statistics_of(from_host({3, 5}, {2}));
  CHECK(ids.mean == doctest::Approx(4.0));
  CHECK(ids.maximum == 5.0);
  for (const Tensor& nothing : {zeros({0, 3}, DType::f32), full({2}, nan, DType::f32)})
    CHECK(std::isnan(statistics_of(nothing).minimum));
}

TEST_CASE("summary: bytes of a row's memory follow from slots, width and dtype") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Memformer model(test::small_audit_model(dtype), RngKey{7});
    CHECK(memory_bytes_per_row(model.config()) == bytes_of(model.initial_state(1)));
  }
}

TEST_SUITE_END();
