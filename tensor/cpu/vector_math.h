#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "tensor/cpu/target.h"

/// Elementary functions for the inner loops. The float versions are branch-free polynomials that
/// compilers vectorise; they use only IEEE +, -, *, /, fused multiply-add and selection, so an
/// element gets the same bits in a vector lane and in a remainder loop. The double versions are the
/// standard library's: accurate to the last bits, which gradient checks need. Coefficients of log
/// and tanh are those of Moshier's Cephes (single precision); those of exp and normal_cdf are
/// minimax fits of our own (weighted least squares on Chebyshev nodes, the weights iterated after
/// Lawson).
namespace mf::cpu_kernels::MEMFORMER_ISA {

/// Elementary operations that one of these functions costs, for the choice of parallel chunks.
inline constexpr std::int64_t kExpCost = 8;

/// a b + c: one rounding where the instruction set fuses them, two where it does not.
[[gnu::always_inline]] inline float multiply_add(float a, float b, float c) {
#if MEMFORMER_VECTOR_BYTES > 16
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

struct VectorMath {
  /// e^x. Relative error below 1.2e-7; exp(-inf) = 0, exp(inf) = inf, NaN stays. Below -86.98 it is
  /// 0, never a subnormal number, which would cost a hundred cycles.
  [[gnu::always_inline]] static inline float exp(float x) {
    const float y = exp_inside(x);
    const float y_or_zero = x < kExpLow ? 0.0f : y;
    return x > kExpHigh ? std::numeric_limits<float>::infinity() : y_or_zero;
  }

  /// Natural logarithm. Relative error below 2e-7; log(0) = -inf, log(inf) = inf, negative and NaN
  /// give NaN.
  [[gnu::always_inline]] static inline float log(float x) {
    // Subnormals are scaled up first. x = 2^n m with m in [sqrt 1/2, sqrt 2).
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    const bool subnormal = x < std::numeric_limits<float>::min();
    const float scaled = x * (subnormal ? 0x1p23f : 1.0f);
    const auto bits = std::bit_cast<std::uint32_t>(scaled);
    constexpr std::uint32_t kSqrtHalf = 0x3f3504f3;
    const auto n = static_cast<std::int32_t>(bits - kSqrtHalf) >> 23;
    const auto m = std::bit_cast<float>(bits - (static_cast<std::uint32_t>(n) << 23));
    const float exponent = static_cast<float>(n) - (subnormal ? 23.0f : 0.0f);
    const float r = m - 1.0f;
    const float square = r * r;
    float p = 7.0376836292e-2f;
    p = multiply_add(p, r, -1.1514610310e-1f);
    p = multiply_add(p, r, 1.1676998740e-1f);
    p = multiply_add(p, r, -1.2420140846e-1f);
    p = multiply_add(p, r, 1.4249322787e-1f);
    p = multiply_add(p, r, -1.6668057665e-1f);
    p = multiply_add(p, r, 2.0000714765e-1f);
    p = multiply_add(p, r, -2.4999993993e-1f);
    p = multiply_add(p, r, 3.3333331174e-1f);
    float y = multiply_add(exponent, -2.12194440e-4f, p * r * square);
    y = multiply_add(-0.5f, square, y);
    y = multiply_add(exponent, 0.693359375f, r + y);
    y = x == 0.0f ? -kInfinity : y;
    y = x < kInfinity ? y : x;  // inf and NaN
    return x < 0.0f ? std::numeric_limits<float>::quiet_NaN() : y;
  }

  /// Relative error below 3e-7; exactly +-1 far out.
  [[gnu::always_inline]] static inline float tanh(float x) {
    const float size = x < 0.0f ? -x : x;
    const float far = 1.0f - 2.0f / (exp(size + size) + 1.0f);
    const float z = x * x;
    float p = -5.70498872745e-3f;
    p = multiply_add(p, z, 2.06390887954e-2f);
    p = multiply_add(p, z, -5.37397155531e-2f);
    p = multiply_add(p, z, 1.33314422036e-1f);
    p = multiply_add(p, z, -3.33332819422e-1f);
    const float near = multiply_add(p * z, x, x);
    const float signed_far = x < 0.0f ? -far : far;
    return size < 0.625f ? near : signed_far;
  }

  /// Phi(x), the standard normal distribution function. Error below 2e-7, and below 3.6e-7 (1 + x^2
  /// / 2) of the result, which is 0 below -13.19.
  [[gnu::always_inline]] static inline float normal_cdf(float x) {
    // Phi(-a) = e^(-a^2 / 2) p(a) / q(a) for a >= 0. The fit weighs relative errors by 1 / (1 + a^2
    // / 2), as what the rounding of a^2 / 2 adds grows so; Phi(0) = 1/2 is exact.
    const float a = std::abs(x);
    float p = 1.422758016e-2f;
    p = multiply_add(p, a, 1.074595647e-1f);
    p = multiply_add(p, a, 3.407057375e-1f);
    p = multiply_add(p, a, 0.5f);
    float q = 3.567573451e-2f;
    q = multiply_add(q, a, 2.689534961e-1f);
    q = multiply_add(q, a, 8.952543512e-1f);
    q = multiply_add(q, a, 1.479293635f);
    q = multiply_add(q, a, 1.0f);
    const float tail = a > kNormalHigh ? 0.0f : exp_inside(-0.5f * a * a) * (p / q);
    return x < 0.0f ? tail : 1.0f - tail;
  }
  /// Phi'(x) = e^(-x^2 / 2) / sqrt(2 pi), 0 beyond +-13.19. A compiler sees that the exponential is
  /// that of normal_cdf(x), and computes it once.
  [[gnu::always_inline]] static inline float normal_density(float x) {
    const float a = std::abs(x);
    const float y = exp_inside(-0.5f * a * a) * static_cast<float>(kInverseSqrt2Pi);
    return a > kNormalHigh ? 0.0f : y;
  }

  [[gnu::always_inline]] static inline float sqrt(float x) { return std::sqrt(x); }

  static double exp(double x) { return std::exp(x); }
  static double log(double x) { return std::log(x); }
  static double tanh(double x) { return std::tanh(x); }
  static double normal_cdf(double x) { return 0.5 * std::erfc(x * -std::numbers::sqrt2 / 2); }
  static double normal_density(double x) { return std::exp(-0.5 * x * x) * kInverseSqrt2Pi; }
  static double sqrt(double x) { return std::sqrt(x); }

 private:
  static constexpr double kInverseSqrt2Pi = 0.39894228040143267794;
  static constexpr float kExpLow = -87.0f, kExpHigh = 89.0f;
  static constexpr float kNormalHigh = 13.19f;  // its square / 2 is just below -kExpLow

  /// e^x for x in [kExpLow, kExpHigh]; 0 already where n is below -125.
  [[gnu::always_inline]] static inline float exp_inside(float x) {
    // x = n ln 2 + r with |r| <= ln 2 / 2, and e^x = 2^(n - 1) 2 e^r: n - 1 is the exponent of a
    // float (127) for the largest results, and of 0 (-127) for the smallest.
    constexpr float kRound = 12582912.0f + 126.0f;  // 1.5 * 2^23: leaves n + 126 in the low bits
    const float shifted = multiply_add(x, 1.44269504088896341f, kRound);
    const float n = shifted - kRound;
    const float r = multiply_add(n, 2.12194440e-4f, multiply_add(n, -0.693359375f, x));
    float p = 2.762907873e-3f;
    p = multiply_add(p, r, 1.673749036e-2f);
    p = multiply_add(p, r, 8.333678160e-2f);
    p = multiply_add(p, r, 3.333304080e-1f);
    p = multiply_add(p, r, 9.999998686e-1f);
    p = multiply_add(p, r, 2.0f);
    p = multiply_add(p, r, 2.0f);
    return p * std::bit_cast<float>(std::bit_cast<std::uint32_t>(shifted) << 23);
  }
};

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
