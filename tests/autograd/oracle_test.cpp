#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "memformer/audit/op_cases.h"
#include "tensor/formulas.h"

/// A second oracle for elementwise functions, free of step size: dual numbers (v + d e, e^2 = 0)
/// run through the same `value` that the kernels run, and their d is the exact derivative.
namespace mf::test {
namespace {

struct Dual {
  double v = 0.0;
  double d = 0.0;

  constexpr explicit Dual(double value, double slope = 0.0) : v(value), d(slope) {}

  constexpr Dual operator-() const { return Dual(-v, -d); }
  friend constexpr Dual operator+(Dual a, Dual b) { return Dual(a.v + b.v, a.d + b.d); }
  friend constexpr Dual operator*(Dual a, Dual b) { return Dual(a.v * b.v, a.d * b.v + a.v * b.d); }
  friend constexpr Dual operator/(Dual a, Dual b) {
    return Dual(a.v / b.v, (a.d * b.v - a.v * b.d) / (b.v * b.v));
  }
  friend constexpr bool operator<(Dual a, Dual b) { return a.v < b.v; }
};

struct DoubleMath {
  static double exp(double x) { return std::exp(x); }
  static double log(double x) { return std::log(x); }
  static double sqrt(double x) { return std::sqrt(x); }
  static double tanh(double x) { return std::tanh(x); }
  static double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }
  static double normal_density(double x) {
    return std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
  }
};

struct DualMath {
  static Dual exp(Dual x) { return Dual(std::exp(x.v), x.d * std::exp(x.v)); }
  static Dual log(Dual x) { return Dual(std::log(x.v), x.d / x.v); }
  static Dual sqrt(Dual x) { return Dual(std::sqrt(x.v), x.d / (2.0 * std::sqrt(x.v))); }
  static Dual tanh(Dual x) {
    const double cosh = std::cosh(x.v);
    return Dual(std::tanh(x.v), x.d / (cosh * cosh));
  }
  static Dual normal_cdf(Dual x) {
    return Dual(DoubleMath::normal_cdf(x.v), x.d * DoubleMath::normal_density(x.v));
  }
};

struct Function {
  const char* name;
  Unary formula;
  Var (*op)(const Var&);
  double low, high;
};

const Function kFunctions[] = {
    {"negative", Unary::negative, negative, -3, 3},
    {"exp", Unary::exp, exp, -8, 8},
    {"log", Unary::log, log, 0.01, 9},
    {"sqrt", Unary::sqrt, sqrt, 0.01, 9},
    {"square", Unary::square, square, -3, 3},
    {"tanh", Unary::tanh, tanh, -3, 3},
    {"sigmoid", Unary::sigmoid, sigmoid, -4, 4},
    {"relu", Unary::relu, relu, -3, 3},
    {"silu", Unary::silu, silu, -4, 4},
    {"gelu", Unary::gelu, gelu, -3, 3},
    {"gelu_tanh", Unary::gelu_tanh, gelu_tanh, -3, 3},
};

bool agree(double a, double b) { return std::abs(a - b) <= 1e-12 * std::abs(b); }

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("formulas: every derivative is that of dual numbers within 1e-12") {
    for (int i = 0; i < 12; ++i) {
      const auto function = static_cast<Unary>(i);
      formulas::visit(function, [&](auto formula) {
        using Formula = decltype(formula);
        for (int k = 0; k < 200; ++k) {
          const double low =
              function == Unary::log || function == Unary::sqrt || function == Unary::reciprocal
                  ? 0.01
                  : -3.0;
          const double x = low + (3.0 - low) * RngKey{9}.uniform(static_cast<std::uint64_t>(k));
          const Dual oracle = Formula::template value<DualMath>(Dual(x, 1.0));
          const double y = Formula::template value<DoubleMath>(x);
          const double slope = Formula::template derivative<DoubleMath>(x, y);
          CHECK_MESSAGE(agree(y, oracle.v), "function " << i << " at " << x);
          CHECK_MESSAGE(agree(slope, oracle.d),
                        "function " << i << " at " << x << ": " << slope << " and " << oracle.d);
        }
      });
    }
  }

  TEST_CASE("ops: tape gradients of elementwise ops are those of dual numbers within 1e-12") {
    for (const Function& function : kFunctions) {
      const Tensor x = uniform({5, 20}, RngKey{4}, function.low, function.high, DType::f64);
      Tape tape;
      const Var leaf = tape.input(x);
      const Tensor seed = uniform({5, 20}, RngKey{5}, 0.5, 1.5, DType::f64);
      tape.backward({{function.op(leaf), seed}});
      const std::vector<double> points = x.to_vector<double>();
      const std::vector<double> weights = seed.to_vector<double>();
      const std::vector<double> gradient = tape.grad(leaf).to_vector<double>();
      formulas::visit(function.formula, [&](auto formula) {
        using Formula = decltype(formula);
        for (std::size_t i = 0; i < points.size(); ++i) {
          const Dual oracle = Formula::template value<DualMath>(Dual(points[i], 1.0));
          CHECK_MESSAGE(agree(gradient[i], weights[i] * oracle.d),
                        function.name << " at " << points[i]);
        }
      });
    }
  }
}

}  // namespace mf::test
