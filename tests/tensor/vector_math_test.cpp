#include "tensor/cpu/vector_math.h"

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <vector>

#include "tensor/formulas.h"
#include "tests/tensor/kernel_checks.h"

using namespace mf;
using namespace mf::test;
using Math = mf::cpu_kernels::portable::VectorMath;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Largest |f(x) - exact(x)| / scale(exact(x)) over floats spread over [low, high].
template <class F, class G, class S>
double worst(float low, float high, const F& f, const G& exact, const S& scale) {
  constexpr int kSteps = 400'000;
  double error = 0.0;
  for (int i = 0; i <= kSteps; ++i) {
    const float x = low + (high - low) * (static_cast<float>(i) / kSteps);
    const double y = exact(static_cast<double>(x));
    error = std::max(error, std::abs(static_cast<double>(f(x)) - y) / scale(y));
  }
  return error;
}

double relative(double y) { return std::max(std::abs(y), 1e-30); }
double absolute(double) { return 1.0; }

}  // namespace

TEST_CASE("vector_math: exp is accurate to 1e-7 relative") {
  const auto f = [](float x) { return Math::exp(x); };
  const auto exact = [](double x) { return std::exp(x); };
  CHECK(worst(-60.0f, 88.0f, f, exact, relative) < 1.2e-7);
  CHECK(worst(-1.0f, 1.0f, f, exact, relative) < 1.2e-7);
}

TEST_CASE("vector_math: log is accurate to 1.5e-7 relative, near 1 and for subnormals too") {
  const auto f = [](float x) { return Math::log(x); };
  const auto exact = [](double x) { return std::log(x); };
  CHECK(worst(1e-6f, 20.0f, f, exact, relative) < 1.5e-7);
  CHECK(worst(0.9f, 1.1f, f, exact, relative) < 1.5e-7);
  CHECK(worst(1e-44f, 1e-37f, f, exact, relative) < 1.5e-7);
  CHECK(worst(1.0f, 3e38f, f, exact, relative) < 1.5e-7);
}

TEST_CASE("vector_math: tanh and erf are accurate to 3e-7 absolute and relative") {
  for (const float limit : {0.01f, 1.0f, 12.0f}) {
    const auto tanh = [](float x) { return Math::tanh(x); };
    const auto exact_tanh = [](double x) { return std::tanh(x); };
    CHECK(worst(-limit, limit, tanh, exact_tanh, absolute) < 3e-7);
    CHECK(worst(-limit, limit, tanh, exact_tanh, relative) < 3e-7);
    const auto erf = [](float x) { return Math::erf(x); };
    const auto exact_erf = [](double x) { return std::erf(x); };
    CHECK(worst(-limit, limit, erf, exact_erf, absolute) < 3e-7);
    CHECK(worst(-limit, limit, erf, exact_erf, relative) < 3e-7);
  }
}

TEST_CASE("vector_math: infinities, zeros and NaN come out as in the standard library") {
  CHECK(Math::exp(-kInfinity) == 0.0f);
  CHECK(Math::exp(kInfinity) == kInfinity);
  CHECK(Math::exp(0.0f) == 1.0f);
  CHECK(Math::log(0.0f) == -kInfinity);
  CHECK(Math::log(kInfinity) == kInfinity);
  CHECK(std::isnan(Math::log(-1.0f)));
  CHECK(Math::tanh(kInfinity) == 1.0f);
  CHECK(Math::tanh(-kInfinity) == -1.0f);
  CHECK(Math::erf(kInfinity) == 1.0f);
  CHECK(Math::erf(-kInfinity) == -1.0f);
  for (const float y : {Math::exp(kNaN), Math::log(kNaN), Math::tanh(kNaN), Math::erf(kNaN)})
    CHECK(std::isnan(y));
}

TEST_CASE("vector_math: an element has the same bits in any lane and in the remainder loop") {
  constexpr std::int64_t kCount = 37;  // whole vectors and a remainder, whatever their width
  for (const auto function : {Unary::exp, Unary::log, Unary::tanh, Unary::sigmoid, Unary::silu,
                              Unary::gelu, Unary::gelu_tanh, Unary::sqrt, Unary::reciprocal}) {
    const Tensor x = affine(uniform({kCount}, RngKey{5}, 0.01, 4.0, DType::f32), 1.0);
    const Tensor together = map(function, x);
    for (std::int64_t i = 0; i < kCount; ++i) {
      const Tensor alone = map(function, x.slice(0, i, i + 1));
      CHECK(same_bits(alone, together.slice(0, i, i + 1).contiguous()));
    }
  }
}

TEST_CASE("formulas: derivatives equal central differences in f64") {
  for (const auto function :
       {Unary::negative, Unary::exp, Unary::log, Unary::sqrt, Unary::square, Unary::reciprocal,
        Unary::tanh, Unary::sigmoid, Unary::relu, Unary::silu, Unary::gelu, Unary::gelu_tanh}) {
    formulas::visit(function, [&](auto formula) {
      using Formula = decltype(formula);
      const auto f = [](double x) { return Formula::template value<Math>(x); };
      const bool positive_only = function == Unary::log || function == Unary::sqrt;
      for (double x = positive_only ? 0.31 : -3.07; x < 4.0; x += 0.13) {
        const double step = 1e-5;
        const double slope = (f(x + step) - f(x - step)) / (2 * step);
        const double derivative = Formula::template derivative<Math>(x, f(x));
        CHECK(std::abs(slope - derivative) < 1e-7 * std::max(1.0, std::abs(derivative)));
      }
    });
  }
}
