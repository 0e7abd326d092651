#include "autograd/grad_check.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "autograd/ops.h"

namespace mf::test {
namespace {

Tensor numbers(const Shape& shape, std::uint64_t key = 1) {
  return uniform(shape, RngKey{key}, -1.0, 1.0, DType::f64);
}

/// y = x^2 whose gradient is 2 x (1 + error), at `index` only or everywhere if negative.
struct WrongSquare {
  static constexpr const char* kName = "wrong_square";
  double error;
  std::int64_t index = -1;
  Saved x{};

  Tensor forward(Wants, const Tensor& value) {
    x = value;
    return square(value);
  }
  void backward(const Tensor& gy, Grads& g) const {
    Tensor gx = affine(mul(gy, x), 2.0);
    if (index < 0) {
      gx = affine(gx, 1.0 + error);
    } else {
      Tensor place = gx.reshape({-1}).slice(0, index, index + 1);
      place.copy_(affine(place, 1.0 + error));
    }
    g.add(0, gx);
  }
  auto saved() { return std::tie(x); }
};

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("grad_check: the report counts coordinates and says that gradients agree") {
    const Tensor inputs[] = {numbers({2, 3}), numbers({3})};
    const GradReport report = grad_check(
        "product", [](Tape&, std::span<const Var> x) { return mul(x[0], x[1]); }, inputs);
    CHECK(report.ok);
    CHECK(report.checked == 9);
    CHECK(report.skipped == 0);
    CHECK(report.failures.empty());
    CHECK(report.worst_error < 0.1);
    CHECK(
        describe(report).starts_with("product: gradients agree, 9 coordinates checked, 0 skipped"));
  }

  TEST_CASE("grad_check: a failure names function, input, coordinate, both values and the reason") {
    const Tensor inputs[] = {numbers({2}), full({2, 3}, 0.5, DType::f64)};
    const GradReport report = grad_check(
        "one wrong element",
        [](Tape&, std::span<const Var> x) {
          return add(sum(x[0]), sum(record(WrongSquare{0.01, 4}, x[1])));
        },
        inputs);
    CHECK(!report.ok);
    REQUIRE(report.failures.size() == 1);
    const GradReport::Failure& failure = report.failures[0];
    CHECK(failure.input == "input 1");
    CHECK(failure.index == 4);
    CHECK(failure.analytic == doctest::Approx(failure.numeric * 1.01));
    const std::string text = describe(report);
    CHECK(text.starts_with("one wrong element: GRADIENTS DIFFER, 8 coordinates checked"));
    CHECK(text.find("input 1 [4]: analytic ") != std::string::npos);
    CHECK(text.find("numeric ") != std::string::npos);
    CHECK(text.find("analytic and numeric differ") != std::string::npos);
  }

  TEST_CASE("grad_check: long lists of failures are cut after ten") {
    const Tensor x = numbers({5, 5});
    const GradReport report = grad_check(
        "all wrong", [](Tape&, std::span<const Var> v) { return record(WrongSquare{0.1}, v[0]); },
        std::span(&x, 1));
    CHECK(report.failures.size() == 25);
    CHECK(describe(report).find("and 15 more") != std::string::npos);
  }

  TEST_CASE("grad_check: the gate sees an error of 1e-5 that PyTorch's tolerances let pass") {
    const Tensor x = full({3}, 0.7, DType::f64);
    const GradFunction fn = [](Tape&, std::span<const Var> v) {
      return record(WrongSquare{1e-5}, v[0]);
    };
    CHECK(!grad_check("gate", fn, std::span(&x, 1)).ok);
    CHECK(grad_check("pytorch", fn, std::span(&x, 1), GradCheckOptions::pytorch()).ok);
  }

  TEST_CASE("grad_check: beyond the limit it checks random directions, and they find errors") {
    const Tensor x = numbers({70, 60});
    const auto fn = [](double error, std::int64_t index) {
      return [=](Tape&, std::span<const Var> v) {
        return scale(record(WrongSquare{error, index}, v[0]), 0.01);
      };
    };
    const GradReport right = grad_check("right", fn(0.0, -1), std::span(&x, 1));
    CHECK_MESSAGE(right.ok, describe(right));
    CHECK(right.checked == 32);
    const GradReport wrong = grad_check("wrong", fn(0.01, -1), std::span(&x, 1));
    CHECK(!wrong.ok);
    REQUIRE(!wrong.failures.empty());
    CHECK(wrong.failures[0].index == -1);
    // A whole-tensor check sees one element in 4,200 too.
    CHECK(!grad_check("one element", fn(0.5, 1234), std::span(&x, 1)).ok);
  }

  TEST_CASE("grad_check: NaN fails, in the gradient and in the function") {
    const Tensor x = full({3}, 0.7, DType::f64);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const GradReport gradient = grad_check(
        "gradient",
        [&](Tape&, std::span<const Var> v) {
          return record(WrongSquare{nan, 1}, v[0]);
        },
        std::span(&x, 1));
    CHECK(!gradient.ok);
    REQUIRE(gradient.failures.size() == 1);
    CHECK(gradient.failures[0].index == 1);
    CHECK(gradient.failures[0].reason == "not finite");
    const Tensor negative = full({3}, -0.7, DType::f64);
    CHECK(!grad_check(
               "function", [](Tape&, std::span<const Var> v) { return log(v[0]); },
               std::span(&negative, 1))
               .ok);
  }

  TEST_CASE("grad_check: a function that is not repeatable is found out") {
    const Tensor x = numbers({4});
    std::uint64_t draws = 0;
    const GradReport report = grad_check(
        "fresh dropout",
        [&](Tape&, std::span<const Var> v) { return dropout(v[0], 0.5, RngKey{++draws}); },
        std::span(&x, 1));
    CHECK(!report.ok);
    CHECK(describe(report).find("not deterministic") != std::string::npos);
  }

  TEST_CASE("grad_check: parameters are checked, named and left as they were") {
    Parameter weight(numbers({2, 2}), "weight");
    const Tensor before = weight.value().clone();
    const Tensor x = numbers({3, 2}, 2);
    const GradFunction fn = [&](Tape& tape, std::span<const Var> v) {
      return linear(v[0], tape.param(weight));
    };
    const GradReport report =
        grad_check("linear", fn, std::span(&x, 1), {}, std::span<const Parameter>(&weight, 1));
    CHECK_MESSAGE(report.ok, describe(report));
    CHECK(report.checked == 10);
    CHECK(first_difference(weight.value(), before) == -1);
    CHECK(!weight.grad().defined());

    const GradFunction wrong = [&](Tape& tape, std::span<const Var>) {
      return record(WrongSquare{0.1}, tape.param(weight));
    };
    const GradReport bad =
        grad_check("wrong", wrong, {}, {}, std::span<const Parameter>(&weight, 1));
    CHECK(!bad.ok);
    CHECK(bad.failures[0].input == "weight");
  }

  TEST_CASE("grad_check: the caller's inputs are not moved") {
    const Tensor x = numbers({2, 3});
    const Tensor before = x.clone();
    grad_check(
        "square", [](Tape&, std::span<const Var> v) { return square(v[0]); }, std::span(&x, 1));
    CHECK(first_difference(x, before) == -1);
    CHECK(x.version() == 1);
  }

  TEST_CASE("grad_check: a result that no input reaches has gradient zero") {
    const Tensor x = numbers({3});
    CHECK(grad_check(
              "constant", [](Tape&, std::span<const Var>) { return constant(numbers({2})); },
              std::span(&x, 1))
              .ok);
    CHECK(!grad_check(
               "detached",
               [](Tape&, std::span<const Var> v) { return square(constant(v[0].value)); },
               std::span(&x, 1))
               .ok);
  }
}

}  // namespace mf::test
