#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tensor/cpu/target.h"

/// Elementary functions for the inner loops. The float versions are branch-free polynomials that
/// compilers vectorise; they use only IEEE +, -, *, /, fused multiply-add and selection, so an
/// element gets the same bits in a vector lane and in a remainder loop. The double versions are the
/// standard library's: accurate to the last bits, which gradient checks need. Coefficients of exp,
/// log and tanh are those of Moshier's Cephes (single precision); those of erf are minimax fits of
/// our own.
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
  /// e^x. Relative error below 2e-7; exp(-inf) = 0, exp(inf) = inf, NaN stays.
  [[gnu::always_inline]] static inline float exp(float x) {
    // x = n ln 2 + r with |r| <= ln 2 / 2. Beyond the clamp the result is 0 or inf anyway.
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves n in the low bits
    const float shifted = multiply_add(x, 1.44269504088896341f, kRound);
    const float n = shifted - kRound;
    const float r = multiply_add(n, 2.12194440e-4f, multiply_add(n, -0.693359375f, x));
    float p = 1.9875691500e-4f;
    p = multiply_add(p, r, 1.3981999507e-3f);
    p = multiply_add(p, r, 8.3334519073e-3f);
    p = multiply_add(p, r, 4.1665795894e-2f);
    p = multiply_add(p, r, 1.6666665459e-1f);
    p = multiply_add(p, r, 5.0000001201e-1f);
    p = multiply_add(p, r * r, r) + 1.0f;
    // 2^n in two factors, as n may exceed the exponents of float at both ends.
    const auto power = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound);
    const std::int32_t half = power >> 1;
    return p * power_of_two(half) * power_of_two(power - half);
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

  /// Relative error below 2e-7; exactly +-1 far out.
  [[gnu::always_inline]] static inline float erf(float x) {
    // Near: x p(x^2). Far: 1 - e^-q(|x|), where q fits -log erfc up to 4; beyond, erf rounds to 1.
    const float z = x * x;
    float p = -6.203246737e-4f;
    p = multiply_add(p, z, 5.032179688e-3f);
    p = multiply_add(p, z, -2.679146189e-2f);
    p = multiply_add(p, z, 1.128245529e-1f);
    p = multiply_add(p, z, -3.761255046e-1f);
    p = multiply_add(p, z, 1.128379157f);
    const float near = x * p;
    const float size = x < 0.0f ? -x : x;
    const float a = size > 4.0f ? 4.0f : size;
    float q = -1.999015165e-4f;
    q = multiply_add(q, a, 3.081997394e-3f);
    q = multiply_add(q, a, -2.238103572e-2f);
    q = multiply_add(q, a, 1.042502133e-1f);
    q = multiply_add(q, a, 6.368206372e-1f);
    q = multiply_add(q, a, 1.127889394f);
    q = multiply_add(q, a, 1.442090794e-4f);
    const float far = 1.0f - exp(-q);
    const float signed_far = x < 0.0f ? -far : far;
    return size < 0.875f ? near : signed_far;
  }

  [[gnu::always_inline]] static inline float sqrt(float x) { return std::sqrt(x); }

  static double exp(double x) { return std::exp(x); }
  static double log(double x) { return std::log(x); }
  static double tanh(double x) { return std::tanh(x); }
  static double erf(double x) { return std::erf(x); }
  static double sqrt(double x) { return std::sqrt(x); }

 private:
  [[gnu::always_inline]] static inline float power_of_two(std::int32_t n) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23);
  }
};

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
