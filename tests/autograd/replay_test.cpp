#include "autograd/replay.h"

#include <doctest/doctest.h>

#include "autograd/grad_check.h"
#include "autograd/ops.h"
#include "tensor/memory.h"

namespace mf::test {
namespace {

constexpr std::int64_t kWidth = 6;

Tensor numbers(const Shape& shape, std::uint64_t key) {
  return uniform(shape, RngKey{key}, -0.8, 0.8, DType::f64);
}

/// A small network with dropout, whose weights are shared by all of its layers.
struct Network {
  Parameter weight{numbers({kWidth, kWidth}, 1), "weight"};
  Parameter bias{numbers({kWidth}, 2), "bias"};

  Var layer(const Pass& pass, const Var& x) const {
    const Var y = linear(x, pass.tape.param(weight), pass.tape.param(bias));
    return add(x, dropout(tanh(y), 0.3, pass.at("dropout").key));
  }
  Var direct(const Pass& pass, Var x, int layers) const {
    for (int i = 0; i < layers; ++i) x = layer(pass.at("layers", i), x);
    return x;
  }
  Var replayed(const Pass& pass, Var x, int layers) const {
    const auto fn = [this](const Pass& inner, const Var& v) { return layer(inner, v); };
    for (int i = 0; i < layers; ++i) x = replay(pass.at("layers", i), fn, x);
    return x;
  }
  void zero_grad() {
    weight.zero_grad();
    bias.zero_grad();
  }
};

struct Gradients {
  Tensor y, x, weight, bias;
};

using Build = std::function<Var(const Pass&, const Var&)>;

Gradients gradients(Network& network, const Build& build, const Tensor& input) {
  network.zero_grad();
  Tape tape;
  const Pass pass{tape, RngKey{77}, Mode::train, {}};
  const Var x = tape.input(input);
  const Var y = build(pass, x);
  tape.backward({{y, numbers(y.shape(), 9)}});
  return {y.value, tape.grad(x), network.weight.grad(), network.bias.grad()};
}

void check_same_bits(const Gradients& a, const Gradients& b) {
  CHECK(first_difference(a.y, b.y) == -1);
  CHECK(first_difference(a.x, b.x) == -1);
  CHECK(first_difference(a.weight, b.weight) == -1);
  CHECK(first_difference(a.bias, b.bias) == -1);
}

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("replay: gradients have the bits of the direct computation, dropout included") {
    Network network;
    const Tensor input = numbers({4, kWidth}, 3);
    const auto direct = [&](const Pass& pass, const Var& x) { return network.direct(pass, x, 5); };
    const auto replayed = [&](const Pass& pass, const Var& x) {
      return network.replayed(pass, x, 5);
    };
    check_same_bits(gradients(network, replayed, input), gradients(network, direct, input));
  }

  TEST_CASE("replay: nests") {
    Network network;
    const Tensor input = numbers({4, kWidth}, 3);
    const auto direct = [&](const Pass& pass, const Var& x) { return network.direct(pass, x, 3); };
    const auto nested = [&](const Pass& pass, const Var& x) {
      return replay(
          pass, [&](const Pass& inner, const Var& v) { return network.replayed(inner, v, 3); }, x);
    };
    check_same_bits(gradients(network, nested, input), gradients(network, direct, input));
  }

  TEST_CASE("replay: parameters inside get gradients although no input is on the tape") {
    Network network;
    Tape tape;
    const Pass pass{tape, RngKey{5}, Mode::train, {}};
    const Var x = constant(numbers({2, kWidth}, 3));
    const auto fn = [&](const Pass& inner, const Var& v) { return network.layer(inner, v); };
    const Var y = replay(pass, fn, x);
    CHECK(y.on_tape());
    tape.backward(sum(y));
    REQUIRE(network.weight.grad().defined());
    CHECK(sum_of_squares(network.weight.grad()) > 0.0);
    CHECK(sum_of_squares(network.bias.grad()) > 0.0);
  }

  TEST_CASE("replay: on a tape that is off it is the plain function") {
    Network network;
    Tape off = Tape::off();
    const Pass pass{off, RngKey{77}, Mode::train, {}};
    const Var x = constant(numbers({2, kWidth}, 3));
    const Var a = network.replayed(pass, x, 2);
    const Var b = network.direct(pass, x, 2);
    CHECK(!a.on_tape());
    CHECK(first_difference(a.value, b.value) == -1);
  }

  TEST_CASE("replay: the mode reaches the second run") {
    for (const Mode mode : {Mode::train, Mode::eval}) {
      std::vector<Mode> seen;
      Tape tape;
      const Pass pass{tape, RngKey{5}, mode, {}};
      const auto fn = [&](const Pass& inner, const Var& v) {
        seen.push_back(inner.mode);
        return square(v);
      };
      tape.backward(sum(replay(pass, fn, tape.input(numbers({2}, 1)))));
      CHECK(seen == std::vector<Mode>{mode, mode});
    }
  }

  TEST_CASE("replay: several results, of which the loss may use some or all") {
    const Tensor input = numbers({2, 3}, 1), other = numbers({2, 3}, 2);
    const ReplayFunction fn = [](const Pass&, std::span<const Var> v) {
      return std::vector<Var>{mul(v[0], v[1]), exp(v[0]), square(v[1])};
    };
    for (int used = 1; used <= 3; ++used) {
      const auto gradient = [&](bool replayed) {
        Tape tape;
        const Pass pass{tape, RngKey{}, Mode::train, {}};
        const Var leaves[] = {tape.input(input), tape.input(other)};
        const std::vector<Var> y = replayed ? replay(pass, fn, leaves) : fn(pass, leaves);
        std::vector<Seed> seeds;
        for (int i = 0; i < used; ++i)
          seeds.push_back({y[static_cast<std::size_t>(i)], numbers({2, 3}, 5)});
        tape.backward(seeds);
        return std::vector<Tensor>{tape.grad(leaves[0]), tape.grad(leaves[1])};
      };
      const std::vector<Tensor> a = gradient(true), b = gradient(false);
      CHECK(first_difference(a[0], b[0]) == -1);
      CHECK(first_difference(a[1], b[1]) == -1);
    }
  }

  TEST_CASE("replay: a constant input stays one, and a result that is an input passes through") {
    Tape tape;
    const Pass pass{tape, RngKey{}, Mode::train, {}};
    const ReplayFunction fn = [](const Pass&, std::span<const Var> v) {
      return std::vector<Var>{mul(v[0], v[1]), v[0]};
    };
    const Var leaves[] = {tape.input(scalar(2.0, DType::f64)), constant(scalar(5.0, DType::f64))};
    const std::vector<Var> y = replay(pass, fn, leaves);
    const Tensor one = scalar(1.0, DType::f64);
    tape.backward({{y[0], one}, {y[1], one}});
    CHECK(tape.grad(leaves[0]).item() == 6.0);
  }

  TEST_CASE("replay: passes the gradient check, parameters included") {
    Network network;
    const Tensor input = numbers({2, kWidth}, 3);
    const Parameter parameters[] = {network.weight, network.bias};
    const GradReport report = grad_check(
        "replay",
        [&](Tape& tape, std::span<const Var> x) {
          return network.replayed(Pass{tape, RngKey{8}, Mode::train, {}}, x[0], 2);
        },
        std::span(&input, 1), {}, parameters);
    CHECK_MESSAGE(report.ok, describe(report));
  }

  TEST_CASE("replay: saves only its inputs, and the peak is lower than of the direct computation") {
    Network network;
    const Tensor input = numbers({64, kWidth}, 3);
    constexpr int kLayers = 4, kBlocks = 8;
    const auto block = [&](const Pass& pass, const Var& x) {
      return network.direct(pass, x, kLayers);
    };
    const auto peak = [&](bool replayed) {
      network.zero_grad();
      const PeakScope scope;
      Tape tape;
      const Pass pass{tape, RngKey{5}, Mode::train, {}};
      Var x = tape.input(input);
      for (int i = 0; i < kBlocks; ++i)
        x = replayed ? replay(pass.at("blocks", i), block, x) : block(pass.at("blocks", i), x);
      if (replayed) CHECK(tape.saved_bytes() == kBlocks * input.bytes());
      if (!replayed) CHECK(tape.saved_bytes() == 2 * kBlocks * kLayers * input.bytes());
      tape.backward(sum(x));
      return scope.growth();
    };
    const std::int64_t direct = peak(false), recomputed = peak(true);
    CHECK(2 * recomputed < direct);
  }

  TEST_CASE("replay: a tensor changed in place before the sweep is an error that names replay") {
    Tape tape;
    const Pass pass{tape, RngKey{}, Mode::train, {}};
    Tensor value = numbers({3}, 1);
    const auto fn = [](const Pass&, const Var& v) { return square(v); };
    const Var y = sum(replay(pass, fn, tape.input(value)));
    value.fill_(1.0);
    CHECK_THROWS_WITH_AS(tape.backward(y),
                         doctest::Contains("backward of replay: a tensor saved for backward"),
                         Error);
  }

  TEST_CASE(
      "replay: a function that gives another number of results when it runs again is an error") {
    Tape tape;
    const Pass pass{tape, RngKey{}, Mode::train, {}};
    int runs = 0;
    const ReplayFunction fn = [&](const Pass&, std::span<const Var> v) {
      return std::vector<Var>(static_cast<std::size_t>(++runs), square(v[0]));
    };
    const Var x = tape.input(scalar(1.0, DType::f64));
    const Var y = replay(pass, fn, std::span(&x, 1)).front();
    CHECK_THROWS_WITH_AS(tape.backward(y), doctest::Contains("1 results, and 2"), Error);
  }

  TEST_CASE("replay: an input on another tape is an error") {
    Tape tape, other;
    const Pass pass{tape, RngKey{}, Mode::train, {}};
    const auto fn = [](const Pass&, const Var& v) { return square(v); };
    CHECK_THROWS_WITH_AS(replay(pass, fn, other.input(numbers({3}, 1))),
                         doctest::Contains("replay: input f64[3] is on another tape"), Error);
  }

  TEST_CASE("replay: anomaly mode names the op inside, forward and backward") {
    const auto message = [](const std::function<Var(const Pass&, const Var&)>& fn, double x) {
      Tape tape;
      tape.check_finite(true);
      const Pass pass{tape, RngKey{1}, Mode::train, "model"};
      std::string text;
      try {
        const Var y = replay(pass.at("outer"), fn, tape.input(scalar(x, DType::f64)));
        tape.backward(y);
      } catch (const Error& error) {
        text = error.what();
      }
      return text;
    };
    const auto inside = [](const Pass& pass, const Var& x, Var (*op)(const Var&)) {
      const Pass inner = pass.at("inner");
      const ModuleScope scope(inner);
      return op(x);
    };
    const std::string forward =
        message([&](const Pass& pass,
                    const Var& x) { return inside(pass, x, [](const Var& v) { return log(v); }); },
                -1.0);
    CHECK_MESSAGE(forward.starts_with("log in model/outer/inner: the forward pass"), forward);
    const std::string backward =
        message([&](const Pass& pass,
                    const Var& x) { return inside(pass, x, [](const Var& v) { return sqrt(v); }); },
                0.0);
    CHECK_MESSAGE(
        backward.find("sqrt in model/outer/inner: the backward pass made 1") != backward.npos,
        backward);
    CHECK(message([](const Pass&, const Var& x) { return exp(x); }, 1.0).empty());
  }
}

}  // namespace mf::test
