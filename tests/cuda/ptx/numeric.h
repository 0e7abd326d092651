#pragma once

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

/// Arithmetic as PTX defines it where C++ differs: rounding modes, NaN, small floats, conversions.
namespace standin::ptx {

enum class Rounding : std::uint8_t { nearest, down, up, zero };

/// Sets the rounding mode for one operation. Operands must be volatile so that it stays inside.
class RoundingScope {
 public:
  explicit RoundingScope(Rounding mode) {
    static constexpr int kModes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    std::fesetround(kModes[static_cast<int>(mode)]);
  }
  ~RoundingScope() { std::fesetround(FE_TONEAREST); }
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;
};

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};
template <class T>
constexpr bool kIsSmallFloat = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;
template <class T>
constexpr bool kIsFloat = std::is_floating_point_v<T> || kIsSmallFloat<T>;

template <class T>
constexpr int kMantissaBits = std::is_same_v<T, Half> ? 10 : 7;
template <class T>
constexpr int kExponentBits = std::is_same_v<T, Half> ? 5 : 8;

/// Rounds `value` to a 16-bit format in one step.
template <class T>
T to_small(double value, Rounding mode) {
  constexpr int kMantissa = kMantissaBits<T>, kBias = (1 << (kExponentBits<T> - 1)) - 1;
  constexpr std::uint16_t kInfinity = ((1 << kExponentBits<T>)-1) << kMantissa;
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return T{0x7fff};
  if (std::isinf(value)) return T{static_cast<std::uint16_t>(sign | kInfinity)};
  if (magnitude == 0) return T{sign};
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int least = 1 - kBias - kMantissa;  // exponent of the smallest subnormal
  const int unit = std::max(exponent - 1 - kMantissa, least);
  const double scaled = std::ldexp(magnitude, -unit);
  const bool away = (mode == Rounding::up && !sign) || (mode == Rounding::down && sign);
  const double rounded = mode == Rounding::nearest ? std::nearbyint(scaled)
                         : away                    ? std::ceil(scaled)
                                                   : std::floor(scaled);
  // Normal numbers carry the implicit bit in `rounded`; adding lets a carry raise the exponent.
  const auto bits =
      static_cast<std::uint32_t>(rounded) + (static_cast<std::uint32_t>(unit - least) << kMantissa);
  if (bits >= kInfinity) {
    const bool finite = mode != Rounding::nearest && !away;
    return T{static_cast<std::uint16_t>(sign | (finite ? kInfinity - 1 : kInfinity))};
  }
  return T{static_cast<std::uint16_t>(sign | bits)};
}

template <class T>
double from_small(T value) {
  constexpr int kMantissa = kMantissaBits<T>, kBias = (1 << (kExponentBits<T> - 1)) - 1;
  constexpr int kAllOnes = (1 << kExponentBits<T>)-1;
  const int exponent = (value.bits >> kMantissa) & kAllOnes;
  const int mantissa = value.bits & ((1 << kMantissa) - 1);
  double magnitude;
  if (exponent == kAllOnes) {
    magnitude = mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                              : std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    magnitude = std::ldexp(mantissa, 1 - kBias - kMantissa);
  } else {
    magnitude = std::ldexp(mantissa + (1 << kMantissa), exponent - kBias - kMantissa);
  }
  return (value.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

/// Single-precision results that are NaN have one bit pattern.
template <class T>
T canonical(T value) {
  if constexpr (std::is_same_v<T, float>) {
    if (value != value) return std::bit_cast<float>(0x7fffffffu);
  }
  return value;
}

template <class T>
T flush(T value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(T{0}, value) : value;
}

template <class T>
T saturate(T value) {
  return value > T{0} ? (value < T{1} ? value : T{1}) : T{0};
}

/// -0 < +0, and a NaN gives way to a number.
template <class T>
T minimum(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a) return canonical(b);
    if (b != b) return a;
    if (a == b) return std::signbit(a) ? a : b;
  }
  return b < a ? b : a;
}
template <class T>
T maximum(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a) return canonical(b);
    if (b != b) return a;
    if (a == b) return std::signbit(a) ? b : a;
  }
  return a < b ? b : a;
}

template <class T>
T round_to_integral(T value, Rounding mode) {
  switch (mode) {
    case Rounding::down:
      return std::floor(value);
    case Rounding::up:
      return std::ceil(value);
    case Rounding::zero:
      return std::trunc(value);
    case Rounding::nearest:
      break;
  }
  return std::nearbyint(value);
}

/// Float to integer: clamps; NaN gives 0, or the top bit where either side has 64 bits.
template <class To, class From>
To to_integer(From value, Rounding mode) {
  using Limits = std::numeric_limits<To>;
  if (value != value) {
    const bool wide = sizeof(To) == 8 || sizeof(From) == 8;
    return wide ? static_cast<To>(std::uint64_t{1} << (8 * sizeof(To) - 1)) : To{0};
  }
  const From whole = round_to_integral(value, mode);
  // 2^bits is exact in every From, the largest integer below it may not be.
  if (whole >= std::ldexp(From{1}, Limits::digits)) return Limits::max();
  if (whole <= static_cast<From>(Limits::min())) return Limits::min();
  return static_cast<To>(whole);
}

/// The approximate double functions see and give the upper halves only.
inline double upper_half(double value) {
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(value) & 0xffff'ffff'0000'0000);
}

}  // namespace standin::ptx
