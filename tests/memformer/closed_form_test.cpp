// Cases that can be worked out by hand (tests/golden/closed_form.json), through the model's own
// classes.

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>

#include "autograd/ops.h"
#include "memformer/replay/truncated.h"
#include "tests/support.h"

namespace mf::test {
namespace {

using Json = nlohmann::json;
using Values = std::vector<double>;

constexpr double kTolerance = 1e-12;

const Json& golden() {
  static const Json json = [] {
    std::ifstream file(std::string(MEMFORMER_SOURCE_DIR) + "/tests/golden/closed_form.json");
    return Json::parse(file);
  }();
  return json;
}

Tensor tensor(const Json& values, const Shape& shape) {
  return from_host(values.get<Values>(), shape);
}

void check_close(const Tensor& actual, const Json& expected) {
  CHECK(relative_difference(actual, tensor(expected, actual.shape())) <= kTolerance);
}

/// Unit radius and next to no epsilon, as in the closed forms. The smallest epsilon allowed that
/// cannot show: 1e-200^2 is 0.
ModelConfig config_of(std::int64_t width, std::int64_t slots, std::int64_t heads,
                      double temperature) {
  ModelConfig c;
  c.width = width;
  c.slots = slots;
  c.heads = heads;
  c.temperature = temperature;
  c.memory_radius = 1.0;
  c.memory_epsilon = 1e-200;
  c.dtype = DType::f64;
  return c;
}

/// A Memory whose forgetting vectors are given.
Memory memory_with(const Tensor& forgetting, double epsilon = 1e-200) {
  ModelConfig config = config_of(forgetting.size(1), forgetting.size(0), 1, 1.0);
  config.memory_epsilon = epsilon;
  Memory memory(config, RngKey{1});
  memory.forgetting.value().copy_(forgetting);
  return memory;
}

Tensor advance(const Memory& memory, const Tensor& written) {
  Tape off = Tape::off();
  return memory.advance(Pass{off, {}, Mode::eval, {}}, constant(written)).value;
}

Tensor initial(const Memory& memory, std::int64_t batch) {
  Tape off = Tape::off();
  return memory.initial(Pass{off, {}, Mode::eval, {}}, batch).value;
}

Tensor identity(std::int64_t width) {
  Tensor matrix = zeros({width, width}, DType::f64);
  for (std::int64_t i = 0; i < width; ++i) matrix.mutable_data<double>()[i * width + i] = 1.0;
  return matrix;
}

MemoryWriter writer_with(const ModelConfig& config, const Tensor& query, const Tensor& key,
                         const Tensor& value) {
  MemoryWriter writer(config, RngKey{1});
  writer.query.weight.value().copy_(query);
  writer.key.weight.value().copy_(key);
  writer.value.weight.value().copy_(value);
  return writer;
}

/// M' = a M + x, O = w M + x, loss = (O - y)^2 / 2: the toy of the paper's algorithm. Numbers are
/// in the order given, so tokens and targets only say which.
class ReplayToy final : public Recurrence {
 public:
  ReplayToy(double decay, double weight, Values inputs, Values targets)
      : decay_(scalar(decay, DType::f64), "decay"),
        weight_(scalar(weight, DType::f64), "weight"),
        inputs_(std::move(inputs)),
        targets_(std::move(targets)) {}

  State initial_state(std::int64_t) const override {
    return {{"memory", scalar(0.0, DType::f64), true, {}}};
  }
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    LiveState next = state;
    next[0].value =
        add(mul(pass.tape.param(decay_), state[0].value), constant(number(inputs_, segment)));
    return next;
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result;
    result.next = next_state(pass, segment, state);
    result.outputs =
        add(mul(pass.tape.param(weight_), state[0].value), constant(number(inputs_, segment)));
    const Var error = sub(result.outputs, constant(number(targets_, segment)));
    result.loss = scale(square(error), 0.5);
    return result;
  }
  std::vector<Parameter> parameters() const override { return {decay_, weight_}; }

  std::vector<Segment> segments() const {
    std::vector<Segment> segments(inputs_.size());
    for (std::size_t t = 0; t < segments.size(); ++t) {
      segments[t].tokens = full({1, 1}, static_cast<double>(t), DType::i32);
      segments[t].scored = 1;
    }
    return segments;
  }

 private:
  static Tensor number(const Values& values, const Segment& segment) {
    return scalar(values[static_cast<std::size_t>(segment.tokens.to(DType::f64).item())],
                  DType::f64);
  }

  Parameter decay_, weight_;
  Values inputs_, targets_;
};

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("memory: biased memory normalization gives the printed vectors") {
    for (const Json& given : golden()["normalisation"]) {
      CAPTURE(given["what"].get<std::string>());
      const Memory memory = memory_with(tensor(given["forgetting"], {1, 2}));
      check_close(advance(memory, tensor(given["written"], {1, 1, 2})), given["next"]);
    }
    // The forgetting vector matters: another one gives another result.
    const Json& first = golden()["normalisation"][0];
    const Memory other = memory_with(from_host({0.0, 1.0}, {1, 2}));
    CHECK(relative_difference(advance(other, tensor(first["written"], {1, 1, 2})),
                              tensor(first["next"], {1, 1, 2})) > 0.1);
  }

  TEST_CASE("memory: a slot that is never refreshed turns toward its start by the printed angles") {
    for (const Json& given : golden()["angles"]) {
      const Memory memory = memory_with(tensor(given["forgetting"], {1, 2}));
      const double start = given["start_degrees"].get<double>() * std::numbers::pi / 180.0;
      Tensor slot = from_host({std::cos(start), std::sin(start)}, {1, 1, 2});
      for (const Json& expected : given["degrees"]) {
        slot = advance(memory, slot);
        const Values at = doubles(slot);
        const double degrees = std::atan2(at[1], at[0]) * 180.0 / std::numbers::pi;
        CHECK(degrees == doctest::Approx(expected.get<double>()).epsilon(1e-12));
      }
    }
    // A forgetting vector of length 1 halves the angle: 170 degrees make 85.
    CHECK(golden()["angles"][0]["degrees"][0].get<double>() == doctest::Approx(85.0));
  }

  TEST_CASE("memory: normalization of zero is the initial memory, which is a fixed point") {
    const Memory memory = memory_with(random_tensor({3, 4}, RngKey{1}));
    const Tensor start = initial(memory, 2);
    CHECK(identical(advance(memory, zeros({2, 3, 4}, DType::f64)), start.contiguous()));
    CHECK(relative_difference(advance(memory, start), start) <= 1e-15);
    const Tensor elsewhere = random_tensor(start.shape(), RngKey{2});
    CHECK(relative_difference(advance(memory, elsewhere), start) > 0.1);
  }

  TEST_CASE("memory: where m' = -v epsilon keeps value and gradient finite") {
    const Tensor forgetting = from_host({0.3, -0.4}, {1, 2});
    for (const double epsilon : {1e-6, 1e-3}) {
      const Memory memory = memory_with(forgetting, epsilon);
      Tape tape;
      const Var written = tape.input(affine(forgetting, -1.0).reshape({1, 1, 2}));
      const Var next = memory.advance(Pass{tape, {}, Mode::train, {}}, written);
      CHECK(doubles(next.value) == Values{0.0, 0.0});
      tape.backward({{next, from_host({1.0, -2.0}, {1, 1, 2})}});
      // radius * g / epsilon: large, and right.
      check_close(tape.grad(written), Json{1.0 / epsilon, -2.0 / epsilon});
      check_close(memory.forgetting.grad(), Json{1.0 / epsilon, -2.0 / epsilon});
    }
    // Without epsilon the value is not a number: this is what it is for.
    const Memory bare = memory_with(forgetting, 1e-200);
    CHECK(count_nonfinite(advance(bare, affine(forgetting, -1.0).reshape({1, 1, 2}))) == 2);
  }

  TEST_CASE("writer: slot attention and normalization give the printed slot and gradients") {
    for (const Json& given : golden()["slot_attention"]) {
      const double temperature = given["temperature"].get<double>();
      CAPTURE(temperature);
      const ModelConfig config = config_of(2, 1, 1, temperature);
      const MemoryWriter writer = writer_with(config, identity(2), identity(2), identity(2));
      const Memory memory = memory_with(tensor(given["forgetting"], {1, 2}));
      Tape tape;
      const Pass pass{tape, {}, Mode::train, {}};
      const Var slots = tape.input(tensor(given["memory"], {1, 1, 2}));
      const Var tokens = tape.input(tensor(given["tokens"], {1, 2, 2}));
      const Var next = memory.advance(pass, writer(pass, slots, tokens, {}));
      check_close(next.value, given["next"]);
      tape.backward({{next, from_host({1.0, 0.0}, {1, 1, 2})}});
      check_close(tape.grad(slots), given["memory_gradient"]);
      check_close(tape.grad(tokens), given["tokens_gradient"]);
      check_close(memory.forgetting.grad(), given["forgetting_gradient"]);
    }
  }

  TEST_CASE("writer: two heads with their own projections give the printed slots") {
    const Json& given = golden()["two_heads"];
    const ModelConfig config = config_of(4, 2, 2, given["temperature"]);
    const MemoryWriter writer =
        writer_with(config, tensor(given["query_weight"], {4, 4}),
                    tensor(given["key_weight"], {4, 4}), tensor(given["value_weight"], {4, 4}));
    const Memory memory = memory_with(tensor(given["forgetting"], {2, 4}));
    Tape off = Tape::off();
    const Pass pass{off, {}, Mode::eval, {}};
    const Var slots = constant(tensor(given["memory"], {1, 2, 4}));
    const Var tokens = constant(tensor(given["tokens"], {1, 2, 4}));
    check_close(memory.advance(pass, writer(pass, slots, tokens, {})).value, given["next"]);

    MemoryWriter one_head = writer;
    one_head.heads = 1;
    const Tensor wrong = memory.advance(pass, one_head(pass, slots, tokens, {})).value;
    CHECK(relative_difference(wrong, tensor(given["next"], wrong.shape())) > 1e-3);
  }

  TEST_CASE("mrbp: the toy's losses, memories and gradients are those worked out by hand") {
    const Json& given = golden()["replay_toy"];
    const ReplayToy toy(given["decay"], given["weight"], given["inputs"], given["targets"]);
    const std::vector<Segment> segments = toy.segments();
    const State entry{{"memory", scalar(given["start"], DType::f64), true, {}}};
    WindowOptions options;
    options.scale = LossScale::sum;
    for (const WindowMethod method : {mrbp, bptt}) {
      const Outcome outcome = run_window(method, toy, segments, entry, RngKey{1}, options);
      CHECK(outcome.result.segment_losses == given["losses"].get<Values>());
      for (std::size_t t = 0; t < segments.size(); ++t)
        CHECK(outcome.result.states[t][0].value.item() == given["memories"][t].get<double>());
      CHECK(outcome.gradients[0].second.item() == given["decay_gradient"].get<double>());
      CHECK(outcome.gradients[1].second.item() == given["weight_gradient"].get<double>());
      CHECK(outcome.result.entry_gradient[0].value.item() == given["start_gradient"].get<double>());
    }
    // G at each boundary, newest first: the entry gradients of the last 1, 2, 3 segments.
    const WindowResult whole = mrbp(toy, segments, entry, RngKey{1}, options);
    for (std::size_t t = 0; t < segments.size(); ++t) {
      const std::size_t begin = segments.size() - 1 - t;
      const State from{{"memory", whole.states[begin][0].value, true, {}}};
      const Outcome tail =
          run_window(mrbp, toy, std::span(segments).subspan(begin), from, RngKey{1}, options);
      CHECK(tail.result.entry_gradient[0].value.item() ==
            given["reverse_memory_gradients"][t].get<double>());
      if (begin + 1 < segments.size()) continue;
      // No credit for the last write: none arrives, which is the printed 0.
      CHECK(!tail.gradients[0].second.defined());
      CHECK(given["decay_gradient_after_last_step"].get<double>() == 0.0);
      CHECK(tail.gradients[1].second.item() ==
            given["weight_gradient_after_last_step"].get<double>());
    }
    // Cut at every boundary, the toy's decay gets no gradient at all.
    const Outcome cut =
        run_window(mrbp, toy, segments, with_boundary(entry, Boundary{1}), RngKey{1}, options);
    CHECK(!cut.gradients[0].second.defined());
    CHECK(cut.gradients[1].second.item() == given["weight_gradient"].get<double>());
  }
}

}  // namespace mf::test
