// What is built on the kernel table, on cuda:0 against the cpu: the ops of the tape, models, memory
// replay, training, evaluation and generation. On a machine without a device it is linked with the
// stand-in of tests/cuda/ptx, whose products are its own: that MRBP is BPTT bit for bit there says
// that both ask for the same products, not that cuBLAS answers alike.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/cuda.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/audit/op_cases.h"
#include "memformer/replay/checkpointed.h"
#include "memformer/train/evaluate.h"
#include "memformer/train/generate.h"
#include "memformer/train/trainer.h"
#include "tests/cuda/small_run.h"
#include "tests/support.h"

namespace mf::test {
namespace {

Device gpu() {
  static const bool installed = (cuda::install(), true);
  static_cast<void>(installed);
  return cuda_device();
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr DType kFloats[] = {DType::f64, DType::f32};
double tolerance(DType dtype) { return dtype == DType::f64 ? 1e-10 : 1e-4; }

std::vector<Tensor> moved(std::span<const Tensor> tensors, DType dtype, Device device) {
  std::vector<Tensor> result;
  for (const Tensor& x : tensors) result.push_back(x.to(dtype).to(device));
  return result;
}

double largest_element(const Tensor& x) {
  double largest = 0.0;
  for (const double value : doubles(x)) largest = std::max(largest, std::abs(value));
  return largest;
}

/// Largest difference of one tensor of a list from its expectation, relative to the largest element
/// of that tensor, which counts as at least a tenth of the largest of all: the gradient of a key's
/// bias, for one, is an exact zero of which only rounding is left. Infinite where one value is not
/// finite, a shape differs, or one is undefined and the other is not.
double largest_difference(const std::vector<Tensor>& got, const std::vector<Tensor>& expected) {
  if (got.size() != expected.size()) return kInfinity;
  double scale = 0.0, largest = 0.0;
  for (const Tensor& x : expected)
    if (x.defined()) scale = std::max(scale, largest_element(x));
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i].defined() != expected[i].defined()) return kInfinity;
    if (!got[i].defined()) continue;
    if (got[i].shape() != expected[i].shape()) return kInfinity;
    const double size = std::max(largest_element(expected[i]), 0.1 * scale);
    const std::vector<double> x = doubles(got[i]), y = doubles(expected[i]);
    for (std::size_t j = 0; j < x.size(); ++j) {
      if (!std::isfinite(x[j]) || !std::isfinite(y[j])) return kInfinity;
      if (x[j] != y[j]) largest = std::max(largest, std::abs(x[j] - y[j]) / size);
    }
  }
  return largest;
}

// The ops of the tape ---------------------------------------------------------------------------

/// The result and the gradients of all inputs, for an irregular gradient of the result.
std::vector<Tensor> forward_and_backward(const GradFunction& function,
                                         const std::vector<Tensor>& inputs) {
  Tape tape;
  std::vector<Var> leaves;
  for (const Tensor& x : inputs) leaves.push_back(tape.input(x));
  const Var y = function(tape, leaves);
  const Tensor seed = uniform(y.shape(), RngKey{23}, -1.0, 1.0, DType::f64);
  tape.backward({{y, seed.to(y.dtype()).to(y.device())}});
  std::vector<Tensor> results{y.value};
  for (const Var& leaf : leaves) results.push_back(tape.grad(leaf));
  return results;
}

TEST_CASE("cuda: every op, forward and backward, in every layout, as on the cpu") {
  std::int64_t count = 0;
  for (const OpRow& row : op_table()) {
    for (const OpCase& one : cases(row)) {
      for (const DType dtype : kFloats) {
        const auto on = [&](Device device) {
          return forward_and_backward(one.function, moved(one.inputs, dtype, device));
        };
        const std::vector<Tensor> expected = on(cpu), got = on(gpu());
        CHECK(got.front().device() == gpu());
        const double difference = largest_difference(got, expected);
        CHECK_MESSAGE(
            difference <= (dtype == DType::f64 ? 1e-13 : 1e-5),
            title(row) << ", " << one.label << ", " << describe(got.front()) << ": " << difference);
        ++count;
      }
    }
  }
  MESSAGE(op_table().size() << " rows of the op table, " << count << " cases");
}

TEST_CASE("cuda: a wrong element of one result is seen") {
  const std::vector<Tensor> right{full({2, 3}, 1.0, DType::f64), full({3}, 2.0, DType::f64)};
  std::vector<Tensor> wrong{right[0].clone(), right[1].clone()};
  CHECK(largest_difference(wrong, right) == 0.0);
  wrong[1].slice(0, 2, 3).fill_(2.0 + 1e-9);
  CHECK(largest_difference(wrong, right) > 1e-10);
  wrong[1].fill_(std::nan(""));
  CHECK(largest_difference(wrong, right) == kInfinity);
  wrong[1] = Tensor{};
  CHECK(largest_difference(wrong, right) == kInfinity);
  wrong.pop_back();
  CHECK(largest_difference(wrong, right) == kInfinity);
}

TEST_CASE("cuda: the gradients of every op pass the gate") {
  // The cpu's are checked at every coordinate (ops_test.cpp) and are these but for rounding.
  GradCheckOptions options;
  options.full_limit = 0;
  options.directions = 3;
  std::int64_t checked = 0;
  for (const OpRow& row : op_table()) {
    const OpCase base = cases(row).front();
    const GradReport report =
        grad_check(title(row), base.function, moved(base.inputs, DType::f64, gpu()), options);
    CHECK_MESSAGE(report.ok, describe(report));
    checked += report.checked;
  }
  MESSAGE(checked << " directions");
}

TEST_CASE("cuda: a wrong gradient does not pass the gate") {
  // The tape sees x^2 with a gradient of x: the second factor is no leaf.
  const GradFunction wrong = [](Tape&, std::span<const Var> x) {
    return mul(x[0], constant(x[0].value));
  };
  const std::vector<Tensor> inputs{full({2, 2}, 0.5, DType::f64, gpu())};
  CHECK_FALSE(grad_check("x^2", wrong, inputs).ok);
}

// Memory replay ---------------------------------------------------------------------------------

void move_to(Device device, Trial& trial) {
  mf::move_to(device, trial.model.parameters());
  for (Segment& segment : trial.segments) segment = segment.to(device);
  for (auto& entry : trial.entry) entry.value = entry.value.to(device);
}

TEST_CASE("cuda: memory replay gives full unrolling's bits in random configurations") {
  Coverage coverage;
  for (const DType dtype : kFloats) {
    const RngKey key = RngKey{7}.at(name_of(dtype));
    for (int i = 0; i < 10; ++i) {
      Draws draw(key.at(static_cast<std::uint64_t>(i)));
      const ModelConfig config = random_config(draw, dtype);
      Trial trial = random_trial(draw, config, 1 + i % 4);
      const Outcome on_cpu = run_window(bptt, trial);
      move_to(gpu(), trial);
      coverage.add(config);
      const Outcome unrolled = run_window(bptt, trial);
      for (const auto method : {mrbp, checkpointed_bptt}) {
        const std::vector<std::string> wrong = differences(run_window(method, trial), unrolled);
        CHECK_MESSAGE(wrong.empty(), join(wrong) << " differ; " << describe(trial));
      }
      std::vector<Tensor> got, expected;
      for (std::size_t p = 0; p < unrolled.gradients.size(); ++p) {
        got.push_back(unrolled.gradients[p].second);
        expected.push_back(on_cpu.gradients[p].second);
        CHECK((!got[p].defined() || got[p].device() == gpu()));
      }
      CHECK_MESSAGE(largest_difference(got, expected) <= tolerance(dtype), describe(trial));
    }
  }
  for (const auto& [name, values] : {std::pair{"positions", 5},
                                     {"memory_norm", 3},
                                     {"activation", 3},
                                     {"layer_replay", 2},
                                     {"dropout", 2}})
    CHECK_MESSAGE(coverage.missing({{name, static_cast<std::size_t>(values)}}).empty(), name);
}

TEST_CASE("cuda: the audit of memory replay finds a planted mistake, and nothing else") {
  ModelConfig config = audit_model();
  config.width = 16;
  config.heads = 2;
  config.encoder_layers = config.decoder_layers = 1;
  config.feed_forward = 24;
  config.segment = 6;
  config.slots = 3;
  config.vocabulary = 20;
  const Memformer model(config, RngKey{1});
  mf::move_to(gpu(), model.parameters());
  AuditOptions options;
  options.segments = {1, 3, 4};
  options.batch = 1;
  options.repeats = 1;
  const AuditReport report = audit_mrbp(model, options);
  CHECK(report.identical());
  // One state a segment, and its loss (f32), which is read at the window's end.
  CHECK(report.mrbp_growth(2) == static_cast<double>(report.state_bytes + 4));
  options.fault = PlantedFault::drop_state_seed;
  CHECK_FALSE(audit_mrbp(model, options).identical());
}

// Training --------------------------------------------------------------------------------------

std::vector<Tensor> weights_of(const Trainer& trainer) {
  std::vector<Tensor> values;
  for (const Parameter& parameter : trainer.model().parameters()) {
    CHECK(parameter.value().device() == trainer.device());
    values.push_back(parameter.value().to(cpu));
  }
  return values;
}

TEST_CASE("cuda: five training steps are the cpu's") {
  for (const DType dtype : kFloats) {
    Trainer here = Trainer::start(small_run(dtype), "");
    Trainer there = Trainer::start(small_run(dtype), "", gpu());
    for (int step = 0; step < 5; ++step) {
      const StepMetrics expected = here.step(), got = there.step();
      CHECK(got.loss == doctest::Approx(expected.loss).epsilon(tolerance(dtype)));
      CHECK(got.gradient_norm == doctest::Approx(expected.gradient_norm).epsilon(tolerance(dtype)));
    }
    CHECK(largest_difference(weights_of(there), weights_of(here)) <= tolerance(dtype));
  }
}

TEST_CASE("cuda: three training steps of every baseline are the cpu's") {
  for (const std::string& name : baseline_names()) {
    CAPTURE(name);
    RunConfig config = small_run(DType::f64);
    choose_model(config, name);
    config = with_settings(config, {"model.width=8", "model.layers=2", "model.segment=8",
                                    "model.dtype=f64", "model.dropout=0.1"});
    Trainer here = Trainer::start(config, "");
    Trainer there = Trainer::start(config, "", gpu());
    for (int step = 0; step < 3; ++step) {
      const StepMetrics expected = here.step(), got = there.step();
      CHECK(got.loss == doctest::Approx(expected.loss).epsilon(1e-10));
      CHECK(got.gradient_norm == doctest::Approx(expected.gradient_norm).epsilon(1e-10));
    }
  }
}

TEST_CASE("cuda: two runs of one seed have the same bits") {
  const auto run = [] {
    Trainer trainer = Trainer::start(small_run(DType::f32), "", gpu());
    for (int step = 0; step < 3; ++step) trainer.step();
    return weights_of(trainer);
  };
  const std::vector<Tensor> first = run(), second = run();
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(identical(first[i], second[i]));
}

TEST_CASE("cuda: a synthetic task trains and is scored") {
  RunConfig config = small_run(DType::f64);
  config.data.source = "task:remember";
  config.model.vocabulary = make_task("remember", {})->vocabulary();
  Trainer here = Trainer::start(config, ""), there = Trainer::start(config, "", gpu());
  for (int step = 0; step < 2; ++step) {
    const StepMetrics expected = here.step(), got = there.step();
    CHECK(got.loss == doctest::Approx(expected.loss).epsilon(1e-10));
    CHECK(got.accuracy == expected.accuracy);
  }
}

TEST_CASE("cuda: evaluation and generation are the cpu's") {
  const Trainer trainer = Trainer::start(small_run(DType::f64), "");
  const std::vector<std::string> text{"int main() { return 0; }\n// nothing more\n"};
  const EvaluateOptions options{.batch = 2, .segment_length = 8};
  const auto continued = [&] {
    Generator generator(as_memformer(trainer.model(), "generate"), "#include <",
                        {.temperature = 0.8}, RngKey{3});
    std::string bytes;
    for (int i = 0; i < 12; ++i) bytes += generator.next();
    return bytes;
  };
  const double bits = evaluate(trainer.model(), text, options).bits_per_byte();
  const std::string bytes = continued();
  mf::move_to(gpu(), trainer.model().parameters());
  CHECK(evaluate(trainer.model(), text, options).bits_per_byte() ==
        doctest::Approx(bits).epsilon(1e-10));
  CHECK(continued() == bytes);
}

}  // namespace
}  // namespace mf::test
