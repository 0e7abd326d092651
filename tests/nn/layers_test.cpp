// Names and sharing of parameters, initial values, dropout, and errors of the small layers.

#include <doctest/doctest.h>

#include <algorithm>

#include "autograd/ops.h"
#include "autograd/replay.h"
#include "nn/dropout.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"
#include "tests/support.h"

namespace mf::test {
namespace {

/// A layer with every kind of member: a parameter, a layer, a vector, an optional, a tied table.
struct Nest {
  Parameter own{zeros({2}, DType::f32)};
  Linear first{2, 3, true, RngKey{1}, DType::f32};
  Linear without_bias{2, 3, false, RngKey{2}, DType::f32};
  std::vector<LayerNorm> norms{LayerNorm(3, 1e-5, DType::f32), LayerNorm(3, 1e-5, DType::f32)};
  std::optional<Linear> absent, present;
  Embedding table{4, 2, 1.0, RngKey{3}, DType::f32};
  Embedding tied = table;

  template <class F>
  void each(F&& fn) const {
    fn("own", own);
    fn("first", first);
    fn("without_bias", without_bias);
    fn("norms", norms);
    fn("absent", absent);
    fn("present", present);
    fn("table", table);
    fn("tied", tied);
  }
};

std::vector<std::string> names_of(const std::vector<Parameter>& parameters) {
  std::vector<std::string> names;
  for (const Parameter& parameter : parameters) names.push_back(parameter.name());
  return names;
}

Tensor run_dropout(const Tensor& x, double probability, RngKey key, Mode mode = Mode::train) {
  Tape off = Tape::off();
  return dropout(Pass{off, key, mode, {}}, constant(x), probability).value;
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("parameters: paths as names, in the order of the members, undefined ones left out") {
    Nest nest;
    nest.present.emplace(3, 1, true, RngKey{4}, DType::f32);
    CHECK(names_of(parameters(nest)) ==
          std::vector<std::string>{"own", "first.weight", "first.bias", "without_bias.weight",
                                   "norms.0.gain", "norms.0.bias", "norms.1.gain", "norms.1.bias",
                                   "present.weight", "present.bias", "table.weight"});
  }

  TEST_CASE("parameters: a tied table is listed once, and both users see a change") {
    Nest nest;
    std::vector<Parameter> all = parameters(nest);
    CHECK(std::ranges::count(names_of(all), "tied.weight") == 0);
    CHECK(nest.table.weight.identity() == nest.tied.weight.identity());
    all.back().value().fill_(3.0);
    CHECK(nest.tied.weight.value().slice(0, 0, 1).slice(1, 0, 1).item() == 3.0);
    nest.tied = Embedding(4, 2, 1.0, RngKey{3}, DType::f32);
    CHECK(names_of(parameters(nest)).back() == "tied.weight");
  }

  TEST_CASE("parameters: a tied table gets the gradient of both uses") {
    const Embedding table(4, 2, 1.0, RngKey{3}, DType::f64);
    const Embedding tied = table;
    const Tensor ids = from_host<std::int32_t>({1}, {1});
    Tape tape;
    const Pass pass{tape, {}, Mode::train, {}};
    tape.backward(sum(add(table(pass, ids), tied(pass, ids))));
    CHECK(table.weight.grad().to_vector<double>() == std::vector<double>{0, 0, 2, 2, 0, 0, 0, 0});
  }

  TEST_CASE("zero_grad: takes every gradient away") {
    std::vector<Parameter> all = parameters(Nest{});
    for (Parameter& parameter : all) parameter.grad() = zeros_like(parameter.value());
    zero_grad(all);
    for (const Parameter& parameter : all) CHECK(!parameter.grad().defined());
  }

  TEST_CASE("init: f32 weights are the f64 ones rounded, keys make them differ") {
    const Linear single(5, 4, true, RngKey{9}, DType::f32),
        twice(5, 4, true, RngKey{9}, DType::f64);
    CHECK(identical(single.weight.value(), twice.weight.value().to(DType::f32)));
    const Linear other(5, 4, true, RngKey{10}, DType::f32);
    CHECK(!identical(single.weight.value(), other.weight.value()));
  }

  TEST_CASE("init: linear weights fill +-1/sqrt(in), tables have the deviation asked for") {
    const Linear layer(400, 100, true, RngKey{9}, DType::f64);
    double largest = 0.0, squares = 0.0;
    for (const double w : doubles(layer.weight.value())) {
      largest = std::max(largest, std::abs(w));
      squares += w * w;
    }
    CHECK(largest <= 0.05);
    CHECK(largest > 0.0499);
    CHECK(squares / 40000.0 == doctest::Approx(0.05 * 0.05 / 3.0).epsilon(0.02));
    CHECK(sum_of_squares(layer.bias.value()) == 0.0);
    const Embedding table(200, 100, 0.3, RngKey{9}, DType::f64);
    CHECK(sum_of_squares(table.weight.value()) / 20000.0 == doctest::Approx(0.09).epsilon(0.03));
  }

  TEST_CASE("layer_norm: rows have mean 0 and variance 1 before gain and bias") {
    const LayerNorm layer(64, 1e-12, DType::f64);
    Tape off = Tape::off();
    const Tensor x = affine(random_tensor({5, 64}, RngKey{1}), 3.0, 7.0);
    const std::vector<double> y = doubles(layer(Pass{off, {}, Mode::eval, {}}, constant(x)).value);
    for (std::size_t row = 0; row < 5; ++row) {
      double total = 0.0, squares = 0.0;
      for (std::size_t i = 0; i < 64; ++i) {
        total += y[row * 64 + i];
        squares += y[row * 64 + i] * y[row * 64 + i];
      }
      CHECK(std::abs(total) < 1e-11);
      CHECK(squares == doctest::Approx(64.0).epsilon(1e-11));
    }
  }

  TEST_CASE("feed_forward: the activation is the one asked for") {
    const Tensor x = from_host({-1.0, 0.5}, {2});
    const auto value = [&](Activation activation) {
      return doubles(activate(activation, constant(x)).value);
    };
    CHECK(value(Activation::relu) == std::vector<double>{0.0, 0.5});
    CHECK(value(Activation::silu)[0] == doctest::Approx(-1.0 / (1.0 + std::exp(1.0))));
    CHECK(value(Activation::gelu)[0] == doctest::Approx(-0.5 * std::erfc(std::sqrt(0.5))));
  }

  TEST_CASE("embedding: an id outside the table is an error that names it") {
    const Embedding table(4, 2, 1.0, RngKey{3}, DType::f32);
    Tape off = Tape::off();
    const Pass pass{off, {}, Mode::eval, {}};
    CHECK_THROWS_WITH_AS(table(pass, from_host<std::int32_t>({1, 4}, {2})), doctest::Contains("4"),
                         Error);
    CHECK_THROWS_AS(table(pass, from_host<std::int32_t>({-1}, {1})), Error);
  }

  TEST_CASE("dropout: zeroes about p of the elements, scales the rest, keeps the mean") {
    constexpr std::int64_t kCount = 200'000;
    const Tensor ones = full({kCount}, 1.0, DType::f64);
    for (const double p : {0.1, 0.5, 0.9}) {
      double dropped = 0.0, total = 0.0, misscaled = 0.0;
      for (const double y : doubles(run_dropout(ones, p, RngKey{1}))) {
        dropped += y == 0.0 ? 1.0 : 0.0;
        misscaled += y == 0.0 || y == 1.0 / (1.0 - p) ? 0.0 : 1.0;
        total += y;
      }
      CHECK(misscaled == 0.0);
      // Five standard deviations of a binomial.
      CHECK(std::abs(dropped - p * kCount) < 5.0 * std::sqrt(p * (1.0 - p) * kCount));
      CHECK(std::abs(total / kCount - 1.0) < 5.0 * std::sqrt(p / (1.0 - p) / kCount));
    }
  }

  TEST_CASE("dropout: evaluation and p = 0 leave the input alone and record nothing") {
    const Tensor x = random_tensor({50}, RngKey{1});
    Tape tape;
    const Var leaf = tape.input(x);
    const Var evaluated = dropout(Pass{tape, RngKey{1}, Mode::eval, {}}, leaf, 0.5);
    const Var nothing = dropout(Pass{tape, RngKey{1}, Mode::train, {}}, leaf, 0.0);
    CHECK(evaluated.value.shares_storage(x));
    CHECK(nothing.value.shares_storage(x));
    CHECK(tape.size() == 0);
    CHECK(!identical(run_dropout(x, 0.5, RngKey{1}), x));
  }

  TEST_CASE("dropout: the mask is a function of the key, and of the path through the layers") {
    const Tensor x = random_tensor({200}, RngKey{1}, DType::f32);
    const Tensor once = run_dropout(x, 0.5, RngKey{1});
    CHECK(identical(run_dropout(x, 0.5, RngKey{1}), once));
    CHECK(!identical(run_dropout(x, 0.5, RngKey{2}), once));
    Tape off = Tape::off();
    const Pass pass{off, RngKey{1}, Mode::train, {}};
    const auto key_at = [&](const char* name, std::int64_t index) {
      return pass.at(name, index).key;
    };
    CHECK(key_at("layers", 0) == key_at("layers", 0));
    CHECK(!(key_at("layers", 0) == key_at("layers", 1)));
    CHECK(!(key_at("layers", 0) == key_at("other", 0)));
  }

  TEST_CASE("dropout: the gradient passes where the value passed") {
    const Tensor x = full({100}, 2.0, DType::f64);
    Tape tape;
    const Var leaf = tape.input(x);
    const Var y = dropout(Pass{tape, RngKey{1}, Mode::train, {}}, leaf, 0.4);
    tape.backward({{y, full({100}, 2.0, DType::f64)}});
    CHECK(identical(tape.grad(leaf), y.value));
  }

  TEST_CASE("dropout: a replayed layer draws the same bits again") {
    const FeedForward layer(4, 16, Activation::gelu, 0.5, RngKey{1}, DType::f32);
    const Tensor x = random_tensor({3, 4}, RngKey{2}, DType::f32);
    const auto gradients = [&](bool replayed) {
      std::vector<Parameter> all = parameters(layer);
      zero_grad(all);
      Tape tape;
      const Pass pass{tape, RngKey{5}, Mode::train, {}};
      const Var leaf = tape.input(x);
      const Var y = replayed
                        ? replay(
                              pass, [&](const Pass& p, const Var& v) { return layer(p, v); }, leaf)
                        : layer(pass, leaf);
      tape.backward({{y, random_tensor(y.shape(), RngKey{6}, DType::f32)}});
      std::vector<Tensor> results{y.value, tape.grad(leaf)};
      for (Parameter& parameter : all) results.push_back(parameter.grad());
      zero_grad(all);
      return results;
    };
    const std::vector<Tensor> plain = gradients(false), replayed = gradients(true);
    for (std::size_t i = 0; i < plain.size(); ++i) CHECK(identical(plain[i], replayed[i]));
  }
}

}  // namespace mf::test
