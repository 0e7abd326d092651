#include "tensor/cpu/vector_math.h"

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <numbers>
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

/// What a function is checked against through the public API, and how large its error may be:
/// relative to the result, or where `of_input` to the input, as of functions that cancel.
struct Bound {
  Unary function;
  double (*exact)(double);
  float low, high;
  double limit;
  bool of_input = false;
};

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

const Bound kBounds[] = {
    {Unary::exp, [](double x) { return std::exp(x); }, -60.0f, 88.0f, 1.2e-7},
    {Unary::log, [](double x) { return std::log(x); }, 1e-6f, 20.0f, 1.5e-7},
    {Unary::log, [](double x) { return std::log(x); }, 1e-44f, 1e-37f, 1.5e-7},
    {Unary::tanh, [](double x) { return std::tanh(x); }, -12.0f, 12.0f, 3e-7},
    {Unary::sqrt, [](double x) { return std::sqrt(x); }, 1e-6f, 1e6f, 6e-8},
    {Unary::reciprocal, [](double x) { return 1.0 / x; }, 1e-3f, 1e3f, 6e-8},
    {Unary::sigmoid, sigmoid, -60.0f, 20.0f, 3e-7},
    {Unary::silu, [](double x) { return x * sigmoid(x); }, -60.0f, 20.0f, 3e-7},
    {Unary::gelu, [](double x) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }, -12.0f, 12.0f,
     2e-7, true},
};

/// Every element of `y` within the bound.
bool within(const Bound& bound, const Tensor& x, const Tensor& y) {
  const std::vector<double> in = values(x), out = values(y);
  for (std::size_t i = 0; i < in.size(); ++i) {
    const double expected = bound.exact(in[i]);
    const double size = bound.of_input ? std::abs(in[i]) : std::abs(expected);
    if (!(std::abs(out[i] - expected) <= bound.limit * size)) return false;
  }
  return true;
}

/// Checks normal_cdf and normal_density of T against long double: as accurate as a result can be
/// whose x^2 / 2 is rounded.
template <class T>
void check_normal() {
  constexpr int kSteps = 400'000;
  constexpr T kLow = T(-12.9), kHigh = T(12.9);
  constexpr auto kEpsilon = static_cast<long double>(std::numeric_limits<T>::epsilon());
  long double worst_cdf = 0, worst_density = 0;  // relative errors as shares of the limit
  for (int i = 0; i <= kSteps; ++i) {
    const T point = kLow + (kHigh - kLow) * (static_cast<T>(i) / kSteps);
    const auto x = static_cast<long double>(point);
    const long double cdf = std::erfc(-x / std::numbers::sqrt2_v<long double>) / 2;
    const long double density =
        std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi_v<long double>);
    const long double limit = 3 * kEpsilon * (1 + x * x / 2);
    const auto share = [&](T value, long double exact) {
      return std::abs(static_cast<long double>(value) - exact) / exact / limit;
    };
    worst_cdf = std::max(worst_cdf, share(Math::normal_cdf(point), cdf));
    worst_density = std::max(worst_density, share(Math::normal_density(point), density));
  }
  CHECK(static_cast<double>(worst_cdf) < 1.0);
  CHECK(static_cast<double>(worst_density) < 1.0);
  CHECK(Math::normal_cdf(T{0}) == T(0.5));
}

}  // namespace

TEST_CASE("map: f32 functions are within their bounds under every instruction set") {
  constexpr std::int64_t kCount = 100'003;  // whole vectors and a remainder
  for (const Bound& bound : kBounds) {
    std::vector<float> points;
    for (std::int64_t i = 0; i < kCount; ++i)
      points.push_back(bound.low + (bound.high - bound.low) *
                                       (static_cast<float>(i) / static_cast<float>(kCount - 1)));
    const Tensor x = from_host(points, {kCount});
    CAPTURE(static_cast<int>(bound.function));
    on_each_isa([&] {
      CAPTURE(name_of(current_isa()));
      const Tensor y = map(bound.function, x);
      CHECK(within(bound, x, y));
      // Control: four ulps in the last element, which lies in the remainder, are seen.
      CHECK(!within(bound, x,
                    concat(std::vector{y.slice(0, 0, kCount - 1),
                                       affine(y.slice(0, kCount - 1, kCount), 1 + 8e-7)},
                           0)));
      // f64 is the standard library's, but for the last bits of compositions.
      Bound exact = bound;
      exact.limit = 1e-14;
      const Tensor wide = x.to(DType::f64);
      CHECK(within(exact, wide, map(bound.function, wide)));
    });
  }
}

TEST_CASE("map: infinities, zeros and NaN come out as in the standard library on every set") {
  struct Case {
    Unary function;
    float x, y;
  };
  const Case cases[] = {{Unary::exp, -kInfinity, 0.0f},
                        {Unary::exp, kInfinity, kInfinity},
                        {Unary::exp, 0.0f, 1.0f},
                        {Unary::exp, -200.0f, 0.0f},
                        {Unary::exp, 100.0f, kInfinity},
                        {Unary::log, 0.0f, -kInfinity},
                        {Unary::log, kInfinity, kInfinity},
                        {Unary::log, 1.0f, 0.0f},
                        {Unary::tanh, kInfinity, 1.0f},
                        {Unary::tanh, -kInfinity, -1.0f},
                        {Unary::sqrt, kInfinity, kInfinity},
                        {Unary::reciprocal, kInfinity, 0.0f},
                        {Unary::sigmoid, kInfinity, 1.0f},
                        {Unary::sigmoid, -kInfinity, 0.0f},
                        {Unary::relu, kInfinity, kInfinity},
                        {Unary::relu, -kInfinity, 0.0f},
                        {Unary::silu, kInfinity, kInfinity},
                        {Unary::gelu, kInfinity, kInfinity},
                        {Unary::square, -kInfinity, kInfinity}};
  // Each value in every lane of the widest vector and in a remainder, other values beside it.
  constexpr std::int64_t kCount = 37;
  on_each_isa([&] {
    CAPTURE(name_of(current_isa()));
    for (const DType dtype : kFloats) {
      for (const Case& c : cases) {
        CAPTURE(static_cast<int>(c.function));
        CAPTURE(c.x);
        for (std::int64_t place = 0; place < kCount; ++place) {
          Tensor x = full({kCount}, 0.5, dtype);
          x.slice(0, place, place + 1).fill_(static_cast<double>(c.x));
          const std::vector<double> y = values(map(c.function, x));
          const double expected = static_cast<double>(c.y);
          // Beyond what f32 can hold, f64 still has a number.
          const bool wide = dtype == DType::f64 && std::isfinite(c.x);
          if (wide) {
            CHECK(static_cast<float>(y[static_cast<std::size_t>(place)]) == c.y);
          } else {
            CHECK(y[static_cast<std::size_t>(place)] == expected);
          }
          CHECK(std::isfinite(y[static_cast<std::size_t>((place + 1) % kCount)]));
        }
      }
      for (const auto function :
           {Unary::negative, Unary::exp, Unary::log, Unary::sqrt, Unary::square, Unary::reciprocal,
            Unary::tanh, Unary::sigmoid, Unary::relu, Unary::silu, Unary::gelu, Unary::gelu_tanh}) {
        CAPTURE(static_cast<int>(function));
        const Tensor x = full({kCount}, std::numeric_limits<double>::quiet_NaN(), dtype);
        CHECK(count_nonfinite(map(function, x)) == kCount);
      }
      for (const auto function : {Unary::log, Unary::sqrt})
        CHECK(std::isnan(map(function, full({1}, -1.0, dtype)).item()));
    }
  });
}

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

TEST_CASE("vector_math: exp gives 0 instead of subnormal numbers") {
  on_each_isa([] {
    CAPTURE(name_of(current_isa()));
    const Tensor x = affine(uniform({100'003}, RngKey{6}, 0.0, 30.0, DType::f32), -1.0, -80.0);
    const std::vector<double> in = values(x), out = values(exp(x));
    for (std::size_t i = 0; i < in.size(); ++i) {
      const bool zero = out[i] == 0.0;
      const bool as_it_should_be =
          zero ? in[i] < -86.9 : in[i] > -87.0 && std::isnormal(static_cast<float>(out[i]));
      REQUIRE(as_it_should_be);
    }
  });
}

TEST_CASE("vector_math: tanh is accurate to 3e-7 absolute and relative") {
  for (const float limit : {0.01f, 1.0f, 12.0f}) {
    const auto tanh = [](float x) { return Math::tanh(x); };
    const auto exact_tanh = [](double x) { return std::tanh(x); };
    CHECK(worst(-limit, limit, tanh, exact_tanh, absolute) < 3e-7);
    CHECK(worst(-limit, limit, tanh, exact_tanh, relative) < 3e-7);
  }
}

TEST_CASE("vector_math: the normal distribution is accurate, relative to its tails too") {
  check_normal<float>();
  check_normal<double>();
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
  CHECK(Math::normal_cdf(kInfinity) == 1.0f);
  CHECK(Math::normal_cdf(-kInfinity) == 0.0f);
  CHECK(Math::normal_cdf(-1e30f) == 0.0f);
  CHECK(Math::normal_density(kInfinity) == 0.0f);
  CHECK(Math::normal_density(-kInfinity) == 0.0f);
  for (const float y : {Math::exp(kNaN), Math::log(kNaN), Math::tanh(kNaN), Math::normal_cdf(kNaN),
                        Math::normal_density(kNaN)})
    CHECK(std::isnan(y));
}

TEST_CASE("vector_math: an element has the same bits in any lane and in the remainder loop") {
  constexpr std::int64_t kCount = 37;  // whole vectors and a remainder, whatever their width
  on_each_isa([] {
    CAPTURE(name_of(current_isa()));
    for (const auto function : {Unary::exp, Unary::log, Unary::tanh, Unary::sigmoid, Unary::silu,
                                Unary::gelu, Unary::gelu_tanh, Unary::sqrt, Unary::reciprocal}) {
      const Tensor x = affine(uniform({kCount}, RngKey{5}, 0.01, 4.0, DType::f32), 1.0);
      const Tensor together = map(function, x);
      for (std::int64_t i = 0; i < kCount; ++i) {
        const Tensor alone = map(function, x.slice(0, i, i + 1));
        CHECK(same_bits(alone, together.slice(0, i, i + 1).contiguous()));
      }
    }
    for (const auto function : {Unary::silu, Unary::gelu, Unary::gelu_tanh}) {
      const Tensor x = uniform({kCount}, RngKey{5}, -14.0, 6.0, DType::f32);
      const Tensor gy = uniform({kCount}, RngKey{6}, -1.0, 1.0, DType::f32);
      const Tensor together = map_backward(function, x, x, gy);
      for (std::int64_t i = 0; i < kCount; ++i) {
        const Tensor place = x.slice(0, i, i + 1);
        CHECK(same_bits(map_backward(function, place, place, gy.slice(0, i, i + 1)),
                        together.slice(0, i, i + 1).contiguous()));
      }
    }
  });
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
