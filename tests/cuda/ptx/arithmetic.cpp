#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "decode.h"
#include "interpreter.h"

/// Instructions that compute registers from registers.
namespace standin::ptx {

namespace {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
__extension__ using s128 = __int128;
__extension__ using u128 = unsigned __int128;

template <class T>
constexpr u32 kBits = 8 * sizeof(T);

// ---- Handlers: F::apply on the operands of an instruction ----

template <class T, class F>
void unary(Lane& l, const Instruction& i) {
  l.set(i.dst[0], canonical(F::apply(l.get<T>(i.src[0]))));
}
template <class T, class F>
void binary(Lane& l, const Instruction& i) {
  l.set(i.dst[0], canonical(F::apply(l.get<T>(i.src[0]), l.get<T>(i.src[1]))));
}
template <class T, class F>
void ternary(Lane& l, const Instruction& i) {
  l.set(i.dst[0], canonical(F::apply(l.get<T>(i.src[0]), l.get<T>(i.src[1]), l.get<T>(i.src[2]))));
}

/// Modifiers of floating-point instructions, packed into Instruction::option.
struct FloatMode {
  Rounding rounding = Rounding::nearest;
  bool saturated = false, flushed = false;

  bool plain() const { return rounding == Rounding::nearest && !saturated && !flushed; }
  u32 pack() const {
    return static_cast<u32>(rounding) | (saturated ? 4u : 0u) | (flushed ? 8u : 0u);
  }
  static FloatMode unpack(u32 bits) {
    return {static_cast<Rounding>(bits & 3), (bits & 4) != 0, (bits & 8) != 0};
  }
};

FloatMode take_float_mode(Opcode& o) {
  FloatMode mode;
  const int r = o.take_any("rn", "rm", "rp", "rz");
  if (r > 0) mode.rounding = static_cast<Rounding>(r);
  mode.saturated = o.take("sat");
  mode.flushed = o.take("ftz");
  return mode;
}

/// The general form of a floating-point instruction with kCount operands.
template <class T, class F, int kCount>
void with_mode(Lane& l, const Instruction& i) {
  const FloatMode mode = FloatMode::unpack(i.option);
  const auto operand = [&](int n) {
    const T value = l.get<T>(i.src[n]);
    return mode.flushed ? flush(value) : value;
  };
  volatile T result;
  {
    volatile T a = operand(0), b = kCount > 1 ? operand(1) : T{0},
               c = kCount > 2 ? operand(2) : T{0};
    const RoundingScope scope(mode.rounding);
    if constexpr (kCount == 1) {
      result = F::apply(T(a));
    } else if constexpr (kCount == 2) {
      result = F::apply(T(a), T(b));
    } else {
      result = F::apply(T(a), T(b), T(c));
    }
  }
  T value = mode.flushed ? flush(T(result)) : T(result);
  if (mode.saturated) value = saturate(value);
  l.set(i.dst[0], canonical(value));
}

template <class F, int kCount>
bool decode_float(Opcode& o, Instruction& i) {
  const FloatMode mode = take_float_mode(o);
  i.option = mode.pack();
  i.execute = for_type<float, double>(o.type(), [&]<class T>() -> Handler {
    if (!mode.plain()) return with_mode<T, F, kCount>;
    if constexpr (kCount == 1) return unary<T, F>;
    if constexpr (kCount == 2) return binary<T, F>;
    if constexpr (kCount == 3) return ternary<T, F>;
  });
  return i.execute != nullptr;
}

template <class F>
bool decode_integer2(Opcode& o, Instruction& i) {
  i.execute = for_type<u16, u32, u64, s16, s32, s64>(
      o.type(), []<class T>() -> Handler { return binary<T, F>; });
  return i.execute != nullptr;
}
template <class F>
bool decode_bits1(Opcode& o, Instruction& i) {
  i.execute =
      for_type<bool, u16, u32, u64>(o.type(), []<class T>() -> Handler { return unary<T, F>; });
  return i.execute != nullptr;
}
template <class F>
bool decode_bits2(Opcode& o, Instruction& i) {
  i.execute =
      for_type<bool, u16, u32, u64>(o.type(), []<class T>() -> Handler { return binary<T, F>; });
  return i.execute != nullptr;
}

bool is_float(Type t) { return t == Type::f32 || t == Type::f64; }

// ---- Sums and products; integers wrap ----

/// a op b with integers widened to 64 bits, where overflow is defined and the low bits are right.
template <class T, class F>
T wrapping(T a, T b, F f) {
  return static_cast<T>(f(static_cast<u64>(a), static_cast<u64>(b)));
}

struct Add {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>)
      return a + b;
    else
      return wrapping(a, b, [](u64 x, u64 y) { return x + y; });
  }
};
struct Sub {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>)
      return a - b;
    else
      return wrapping(a, b, [](u64 x, u64 y) { return x - y; });
  }
};
struct Mul {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>)
      return a * b;
    else
      return wrapping(a, b, [](u64 x, u64 y) { return x * y; });
  }
};
struct Fma {
  template <class T>
  static T apply(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct MulHigh {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (sizeof(T) == 8) {
      using Wide = std::conditional_t<std::is_signed_v<T>, s128, u128>;
      return static_cast<T>(Wide{a} * Wide{b} >> 64);
    } else {
      using Wide = std::conditional_t<std::is_signed_v<T>, s64, u64>;
      return static_cast<T>(Wide{a} * Wide{b} >> kBits<T>);
    }
  }
};
struct MulAdd {
  template <class T>
  static T apply(T a, T b, T c) {
    return Add::apply(Mul::apply(a, b), c);
  }
};
struct MulHighAdd {
  template <class T>
  static T apply(T a, T b, T c) {
    return Add::apply(MulHigh::apply(a, b), c);
  }
};
struct Sad {
  template <class T>
  static T apply(T a, T b, T c) {
    return Add::apply(c, a < b ? Sub::apply(b, a) : Sub::apply(a, b));
  }
};

template <class T>
using Twice =
    std::conditional_t<std::is_same_v<T, u16>, u32,
                       std::conditional_t<std::is_same_v<T, s16>, s32,
                                          std::conditional_t<std::is_same_v<T, u32>, u64, s64>>>;

template <class T>
void multiply_wide(Lane& l, const Instruction& i) {
  using W = Twice<T>;
  l.set(i.dst[0], Mul::apply(W{l.get<T>(i.src[0])}, W{l.get<T>(i.src[1])}));
}
template <class T>
void multiply_wide_add(Lane& l, const Instruction& i) {
  using W = Twice<T>;
  const W product = Mul::apply(W{l.get<T>(i.src[0])}, W{l.get<T>(i.src[1])});
  l.set(i.dst[0], Add::apply(product, l.get<W>(i.src[2])));
}

// Extended precision: the carry goes from .cc instructions to those that end in c.

enum Carry : u32 { kCarryOut = 1, kCarryIn = 2 };

template <class T, bool kSubtract>
void add_carry(Lane& l, const Instruction& i) {
  const T a = l.get<T>(i.src[0]), b = l.get<T>(i.src[1]);
  const bool in = (i.option & kCarryIn) != 0 && l.carry;
  T result, more;
  bool out;
  if constexpr (kSubtract) {
    out = __builtin_sub_overflow(a, b, &result);
    out |= __builtin_sub_overflow(result, static_cast<T>(in), &more);
  } else {
    out = __builtin_add_overflow(a, b, &result);
    out |= __builtin_add_overflow(result, static_cast<T>(in), &more);
  }
  if ((i.option & kCarryOut) != 0) l.carry = out;
  l.set(i.dst[0], more);
}

template <class T, class Product>
void multiply_add_carry(Lane& l, const Instruction& i) {
  const T product = Product::apply(l.get<T>(i.src[0]), l.get<T>(i.src[1]));
  const bool in = (i.option & kCarryIn) != 0 && l.carry;
  T result, more;
  bool out = __builtin_add_overflow(product, l.get<T>(i.src[2]), &result);
  out |= __builtin_add_overflow(result, static_cast<T>(in), &more);
  if ((i.option & kCarryOut) != 0) l.carry = out;
  l.set(i.dst[0], more);
}

Type as_unsigned(Type t) { return t == Type::s32 ? Type::u32 : t == Type::s64 ? Type::u64 : t; }

template <bool kSubtract>
bool decode_add_carry(Opcode& o, Instruction& i, u32 carry) {
  i.option = carry | (o.take("cc") ? u32{kCarryOut} : 0u);
  i.execute = for_type<u32, u64>(as_unsigned(o.type()),
                                 []<class T>() -> Handler { return add_carry<T, kSubtract>; });
  return i.execute != nullptr;
}

template <class F, bool kSubtract>
bool decode_sum(Opcode& o, Instruction& i) {
  if (is_float(o.type())) return decode_float<F, 2>(o, i);
  if (o.take("cc")) return decode_add_carry<kSubtract>(o, i, kCarryOut);
  return decode_integer2<F>(o, i);
}

bool decode_mul(Opcode& o, Instruction& i) {
  if (is_float(o.type())) return decode_float<Mul, 2>(o, i);
  switch (o.take_any("lo", "hi", "wide")) {
    case 0:
      return decode_integer2<Mul>(o, i);
    case 1:
      return decode_integer2<MulHigh>(o, i);
    case 2:
      i.execute = for_type<u16, u32, s16, s32>(
          o.type(), []<class T>() -> Handler { return multiply_wide<T>; });
      return i.execute != nullptr;
    default:
      return false;
  }
}

template <class F>
bool decode_integer3(Opcode& o, Instruction& i) {
  i.execute = for_type<u16, u32, u64, s16, s32, s64>(
      o.type(), []<class T>() -> Handler { return ternary<T, F>; });
  return i.execute != nullptr;
}

bool decode_mad_carry(Opcode& o, Instruction& i, u32 carry) {
  i.option = carry | (o.take("cc") ? u32{kCarryOut} : 0u);
  const int part = o.take_any("lo", "hi");
  if (part < 0) return false;
  // The high half of a product depends on the sign, the carry does not.
  if (part == 1 && as_unsigned(o.type()) != o.type()) return false;
  i.execute = for_type<u32, u64>(as_unsigned(o.type()), [&]<class T>() -> Handler {
    return part == 0 ? multiply_add_carry<T, Mul> : multiply_add_carry<T, MulHigh>;
  });
  return i.execute != nullptr;
}

bool decode_mad(Opcode& o, Instruction& i) {
  if (is_float(o.type())) return decode_float<Fma, 3>(o, i);
  if (o.take("cc")) return decode_mad_carry(o, i, kCarryOut);
  switch (o.take_any("lo", "hi", "wide")) {
    case 0:
      return decode_integer3<MulAdd>(o, i);
    case 1:
      return decode_integer3<MulHighAdd>(o, i);
    case 2:
      i.execute = for_type<u16, u32, s16, s32>(
          o.type(), []<class T>() -> Handler { return multiply_wide_add<T>; });
      return i.execute != nullptr;
    default:
      return false;
  }
}

// ---- Quotients, roots and approximations ----

struct Div {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      return a / b;
    } else {
      if (b == 0) return static_cast<T>(~T{0});  // unspecified in PTX; what devices give
      if constexpr (std::is_signed_v<T>) {
        if (b == T{-1}) return Sub::apply(T{0}, a);
      }
      return static_cast<T>(a / b);
    }
  }
};
struct Rem {
  template <class T>
  static T apply(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == T{-1}) return T{0};
    }
    return static_cast<T>(a % b);
  }
};
struct Sqrt {
  template <class T>
  static T apply(T a) {
    return std::sqrt(a);
  }
};
struct Rcp {
  template <class T>
  static T apply(T a) {
    return T{1} / a;
  }
};

/// Single-precision approximations are computed in double and rounded once, which is better than
/// hardware does.
template <double (*kFunction)(double)>
struct InDouble {
  template <class T>
  static T apply(T a) {
    return static_cast<T>(kFunction(static_cast<double>(a)));
  }
};
double reciprocal_root(double x) { return 1.0 / std::sqrt(x); }
double reciprocal(double x) { return 1.0 / x; }

template <double (*kFunction)(double)>
struct UpperHalves {
  static double apply(double a) { return upper_half(kFunction(upper_half(a))); }
};

template <double (*kFunction)(double)>
bool decode_approximation(Opcode& o, Instruction& i) {
  o.take("approx");
  return o.type() == Type::f32 && decode_float<InDouble<kFunction>, 1>(o, i);
}

/// rcp and rsqrt also have a double form that works on the upper halves.
template <double (*kFunction)(double), bool kHasExactForm>
bool decode_reciprocal(Opcode& o, Instruction& i) {
  if (!o.take("approx")) return kHasExactForm && decode_float<Rcp, 1>(o, i);
  if (o.type() == Type::f32) return decode_float<InDouble<kFunction>, 1>(o, i);
  if (o.type() != Type::f64) return false;
  i.execute =
      o.take("ftz") ? unary<double, UpperHalves<kFunction>> : unary<double, InDouble<kFunction>>;
  return true;
}

bool decode_div(Opcode& o, Instruction& i) {
  if (!is_float(o.type())) return decode_integer2<Div>(o, i);
  o.take("approx"), o.take("full");
  return decode_float<Div, 2>(o, i);
}
bool decode_sqrt(Opcode& o, Instruction& i) {
  o.take("approx");
  return decode_float<Sqrt, 1>(o, i);
}

// ---- Minimum, maximum, sign ----

template <bool kMaximum>
struct Extreme {
  template <class T>
  static T apply(T a, T b) {
    return kMaximum ? maximum(a, b) : minimum(a, b);
  }
};
template <bool kMaximum>
struct ExtremeNaN {
  template <class T>
  static T apply(T a, T b) {
    if (a != a || b != b) return std::numeric_limits<T>::quiet_NaN();
    return Extreme<kMaximum>::apply(a, b);
  }
};
struct Neg {
  template <class T>
  static T apply(T a) {
    if constexpr (std::is_floating_point_v<T>)
      return -a;
    else
      return Sub::apply(T{0}, a);
  }
};
struct Abs {
  template <class T>
  static T apply(T a) {
    if constexpr (std::is_floating_point_v<T>)
      return std::fabs(a);
    else
      return a < 0 ? Neg::apply(a) : a;
  }
};
struct CopySign {  // the sign comes first
  template <class T>
  static T apply(T sign, T magnitude) {
    return std::copysign(magnitude, sign);
  }
};

template <bool kMaximum>
bool decode_extreme(Opcode& o, Instruction& i) {
  if (!is_float(o.type())) return decode_integer2<Extreme<kMaximum>>(o, i);
  if (o.take("NaN")) return decode_float<ExtremeNaN<kMaximum>, 2>(o, i);
  return decode_float<Extreme<kMaximum>, 2>(o, i);
}

template <class F>
bool decode_sign(Opcode& o, Instruction& i) {
  if (is_float(o.type())) return decode_float<F, 1>(o, i);
  i.execute = for_type<s16, s32, s64>(o.type(), []<class T>() -> Handler { return unary<T, F>; });
  return i.execute != nullptr;
}

// ---- Bits ----

struct And {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <class T>
  static T apply(T a) {
    if constexpr (std::is_same_v<T, bool>)
      return !a;
    else
      return static_cast<T>(~a);
  }
};
struct CNot {
  template <class T>
  static T apply(T a) {
    return static_cast<T>(a == 0);
  }
};

/// Shift counts are 32-bit and clamp at the width.
template <class T>
void shift_left(Lane& l, const Instruction& i) {
  const u32 n = l.get<u32>(i.src[1]);
  l.set(i.dst[0], n >= kBits<T> ? T{0} : static_cast<T>(u64{l.get<T>(i.src[0])} << n));
}
template <class T>
void shift_right(Lane& l, const Instruction& i) {
  const u32 n = l.get<u32>(i.src[1]);
  const T a = l.get<T>(i.src[0]);
  if constexpr (std::is_signed_v<T>) {
    l.set(i.dst[0], static_cast<T>(s64{a} >> std::min(n, kBits<T> - 1)));
  } else {
    l.set(i.dst[0], n >= kBits<T> ? T{0} : static_cast<T>(a >> n));
  }
}

template <bool kLeft, bool kWrap>
void funnel_shift(Lane& l, const Instruction& i) {
  const u64 both = u64{l.get<u32>(i.src[1])} << 32 | l.get<u32>(i.src[0]);
  const u32 n = kWrap ? l.get<u32>(i.src[2]) & 31 : std::min(l.get<u32>(i.src[2]), 32u);
  l.set(i.dst[0], static_cast<u32>(kLeft ? (both << n) >> 32 : both >> n));
}

template <class T>
void count_ones(Lane& l, const Instruction& i) {
  l.set(i.dst[0], static_cast<u32>(std::popcount(l.get<T>(i.src[0]))));
}
template <class T>
void leading_zeros(Lane& l, const Instruction& i) {
  l.set(i.dst[0], static_cast<u32>(std::countl_zero(l.get<T>(i.src[0]))));
}
template <class T>
void reverse_bits(Lane& l, const Instruction& i) {
  T in = l.get<T>(i.src[0]), out = 0;
  for (u32 n = 0; n < kBits<T>; ++n, in >>= 1) out = static_cast<T>(out << 1 | (in & 1));
  l.set(i.dst[0], out);
}

/// Position of the highest bit that differs from the sign; all ones if there is none.
template <class T, bool kShiftAmount>
void find_bit(Lane& l, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  const T a = l.get<T>(i.src[0]);
  const U bits = a < 0 ? static_cast<U>(~a) : static_cast<U>(a);
  if (bits == 0) return l.set(i.dst[0], ~0u);
  const auto zeros = static_cast<u32>(std::countl_zero(bits));
  l.set(i.dst[0], kShiftAmount ? zeros : kBits<T> - 1 - zeros);
}

template <class U>
U low_ones(u32 n) {
  return n >= kBits<U> ? static_cast<U>(~U{0}) : static_cast<U>((U{1} << n) - 1);
}

/// Bits past the top of `a` are copies of the field's sign, or 0 where T is unsigned.
template <class T>
void extract_bits(Lane& l, const Instruction& i) {
  using U = std::make_unsigned_t<T>;
  constexpr u32 kTop = kBits<T> - 1;
  const auto a = static_cast<U>(l.get<T>(i.src[0]));
  const u32 position = l.get<u32>(i.src[1]) & 255, length = l.get<u32>(i.src[2]) & 255;
  const bool sign =
      std::is_signed_v<T> && length != 0 && (a >> std::min(position + length - 1, kTop) & 1) != 0;
  const u32 known = position > kTop ? 0 : std::min(length, kTop + 1 - position);
  const U field = known == 0 ? U{0} : static_cast<U>(a >> position & low_ones<U>(known));
  l.set(i.dst[0], static_cast<T>(sign ? field | ~low_ones<U>(known) : field));
}

template <class T>
void insert_bits(Lane& l, const Instruction& i) {
  const T a = l.get<T>(i.src[0]), b = l.get<T>(i.src[1]);
  const u32 position = l.get<u32>(i.src[2]) & 255, length = l.get<u32>(i.src[3]) & 255;
  if (position >= kBits<T> || length == 0) return l.set(i.dst[0], b);
  const T mask = low_ones<T>(length) << position;
  l.set(i.dst[0], (b & ~mask) | (a << position & mask));
}

void permute_bytes(Lane& l, const Instruction& i) {
  const u64 both = u64{l.get<u32>(i.src[1])} << 32 | l.get<u32>(i.src[0]);
  const u32 selector = l.get<u32>(i.src[2]);
  u32 result = 0;
  for (u32 n = 0; n < 4; ++n) {
    const u32 choice = selector >> (4 * n) & 15;
    auto byte = static_cast<u8>(both >> (8 * (choice & 7)));
    if ((choice & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;  // replicate its sign
    result |= u32{byte} << (8 * n);
  }
  l.set(i.dst[0], result);
}

/// Any function of three bits, given as its truth table.
void logic3(Lane& l, const Instruction& i) {
  const u32 a = l.get<u32>(i.src[0]), b = l.get<u32>(i.src[1]), c = l.get<u32>(i.src[2]);
  const u32 table = l.get<u32>(i.src[3]);
  u32 result = 0;
  for (u32 row = 0; row < 8; ++row) {
    if ((table >> row & 1) == 0) continue;
    result |= ((row & 4) != 0 ? a : ~a) & ((row & 2) != 0 ? b : ~b) & ((row & 1) != 0 ? c : ~c);
  }
  l.set(i.dst[0], result);
}

bool decode_shl(Opcode& o, Instruction& i) {
  i.execute = for_type<u16, u32, u64>(o.type(), []<class T>() -> Handler { return shift_left<T>; });
  return i.execute != nullptr;
}
bool decode_shr(Opcode& o, Instruction& i) {
  i.execute = for_type<u16, u32, u64, s16, s32, s64>(
      o.type(), []<class T>() -> Handler { return shift_right<T>; });
  return i.execute != nullptr;
}
bool decode_shf(Opcode& o, Instruction& i) {
  const bool left = o.take("l");
  if (!left && !o.take("r")) return false;
  const bool wrap = o.take("wrap");
  if (!wrap && !o.take("clamp")) return false;
  if (left)
    i.execute = wrap ? funnel_shift<true, true> : funnel_shift<true, false>;
  else
    i.execute = wrap ? funnel_shift<false, true> : funnel_shift<false, false>;
  return o.type() == Type::u32;
}
bool decode_bfind(Opcode& o, Instruction& i) {
  const bool amount = o.take("shiftamt");
  i.execute = for_type<u32, u64, s32, s64>(o.type(), [&]<class T>() -> Handler {
    return amount ? find_bit<T, true> : find_bit<T, false>;
  });
  return i.execute != nullptr;
}
bool decode_bfe(Opcode& o, Instruction& i) {
  i.execute =
      for_type<u32, u64, s32, s64>(o.type(), []<class T>() -> Handler { return extract_bits<T>; });
  return i.execute != nullptr;
}
bool decode_bfi(Opcode& o, Instruction& i) {
  i.execute = for_type<u32, u64>(o.type(), []<class T>() -> Handler { return insert_bits<T>; });
  return i.execute != nullptr;
}

// ---- Comparison and selection ----

enum Comparison { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan, kComparisons };

template <Comparison kWhich, class T>
bool compare(T a, T b) {
  const bool unordered = a != a || b != b;
  if (kWhich == num || kWhich == nan) return unordered == (kWhich == nan);
  if (unordered) return kWhich >= equ;
  switch (kWhich % equ) {
    case eq:
      return a == b;
    case ne:
      return a != b;
    case lt:
      return a < b;
    case le:
      return a <= b;
    case gt:
      return a > b;
    default:
      return a >= b;
  }
}

/// Instruction::option: how the result is combined with a third operand.
enum Combine : u32 { kAlone, kAnd, kOr, kXor, kNegated = 4 };

template <class T, Comparison kWhich>
void set_predicate(Lane& l, const Instruction& i) {
  const bool result = compare<kWhich>(l.get<T>(i.src[0]), l.get<T>(i.src[1]));
  if (i.option == kAlone) {
    l.set(i.dst[0], result);
    if (i.dst[1] != 0) l.set(i.dst[1], !result);
    return;
  }
  const bool third = (l.registers[i.src[2]] & 1) != ((i.option & kNegated) != 0 ? 1u : 0u);
  const auto combine = [&](bool x) {
    switch (i.option & 3) {
      case kAnd:
        return x && third;
      case kOr:
        return x || third;
      default:
        return x != third;
    }
  };
  l.set(i.dst[0], combine(result));
  if (i.dst[1] != 0) l.set(i.dst[1], combine(!result));
}

template <class T, int kWhich = 0>
Handler predicate_handler(int which) {
  if constexpr (kWhich == kComparisons) {
    return nullptr;
  } else if constexpr (!std::is_floating_point_v<T> && kWhich > ge) {
    return nullptr;
  } else {
    if (which == kWhich) return set_predicate<T, static_cast<Comparison>(kWhich)>;
    return predicate_handler<T, kWhich + 1>(which);
  }
}

bool decode_setp(Opcode& o, Instruction& i) {
  const bool negated = i.option != 0;  // of the third operand, from the parser
  i.option = static_cast<u32>(o.take_any("and", "or", "xor") + 1) | (negated ? kNegated : 0u);
  o.take("ftz");
  int which = o.take_any("eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu",
                         "geu", "num", "nan");
  if (which < 0) {
    const int unsigned_name = o.take_any("lo", "ls", "hi", "hs");
    if (unsigned_name < 0) return false;
    which = lt + unsigned_name;
  }
  i.execute = for_type<u16, u32, u64, s16, s32, s64, float, double>(
      o.type(), [&]<class T>() -> Handler { return predicate_handler<T>(which); });
  return i.execute != nullptr;
}

void select(Lane& l, const Instruction& i) {
  l.registers[i.dst[0]] = l.registers[(l.registers[i.src[2]] & 1) != 0 ? i.src[0] : i.src[1]];
}
bool decode_selp(Opcode& o, Instruction& i) {
  i.execute = select;
  i.role = Role::selection;
  return o.type() != Type::none;
}

enum TestProperty : u32 { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };

template <class T>
void test_property(Lane& l, const Instruction& i) {
  const int c = std::fpclassify(l.get<T>(i.src[0]));
  bool result = false;
  switch (i.option) {
    case kFinite:
      result = c != FP_NAN && c != FP_INFINITE;
      break;
    case kInfinite:
      result = c == FP_INFINITE;
      break;
    case kNumber:
      result = c != FP_NAN;
      break;
    case kNotANumber:
      result = c == FP_NAN;
      break;
    case kNormal:
      result = c == FP_NORMAL;
      break;
    default:
      result = c == FP_SUBNORMAL;
      break;
  }
  l.set(i.dst[0], result);
}
bool decode_testp(Opcode& o, Instruction& i) {
  const int which = o.take_any("finite", "infinite", "number", "notanumber", "normal", "subnormal");
  i.option = static_cast<u32>(which);
  i.execute =
      for_type<float, double>(o.type(), []<class T>() -> Handler { return test_property<T>; });
  return which >= 0 && i.execute != nullptr;
}

// ---- Moves and conversions ----

/// The whole cell, so that an unset register stays recognisable.
void move(Lane& l, const Instruction& i) { l.registers[i.dst[0]] = l.registers[i.src[0]]; }
/// mov.b64 {a,b}, c and the like.
template <class Part>
void unpack(Lane& l, const Instruction& i) {
  const u64 whole = l.registers[i.src[0]];
  for (u32 n = 0; n < i.count; ++n) l.set(i.dst[n], static_cast<Part>(whole >> (n * kBits<Part>)));
}
template <class Part>
void pack(Lane& l, const Instruction& i) {
  u64 whole = 0;
  for (u32 n = 0; n < i.count; ++n) whole |= u64{l.get<Part>(i.src[n])} << (n * kBits<Part>);
  l.registers[i.dst[0]] = whole;
}

bool decode_mov(Opcode& o, Instruction& i) {
  // The parser sets `count` for a vector and `option` to 1 if it is the source.
  if (i.count == 1) {
    i.execute = move;
    i.role = Role::move;
    return o.type() != Type::none;
  }
  const bool packs = i.option == 1;
  switch (size_of(o.type()) / i.count) {
    case 1:
      i.execute = packs ? pack<u8> : unpack<u8>;
      return true;
    case 2:
      i.execute = packs ? pack<u16> : unpack<u16>;
      return true;
    case 4:
      i.execute = packs ? pack<u32> : unpack<u32>;
      return true;
    default:
      return false;
  }
}

/// Instruction::option of cvt: FloatMode and whether the result is a whole number.
constexpr u32 kIntegral = 16;

template <class D, class S>
D convert(S value, FloatMode mode, bool integral) {
  if constexpr (kIsSmallFloat<S>) {
    return convert<D>(from_small(value), mode, integral);
  } else if constexpr (kIsSmallFloat<D>) {
    return to_small<D>(static_cast<double>(value), mode.rounding);
  } else if constexpr (std::is_integral_v<D> && std::is_floating_point_v<S>) {
    return to_integer<D>(mode.flushed ? flush(value) : value, mode.rounding);
  } else if constexpr (std::is_integral_v<D>) {
    if (mode.saturated) {
      if (std::cmp_less(value, std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
      if (std::cmp_greater(value, std::numeric_limits<D>::max()))
        return std::numeric_limits<D>::max();
    }
    return static_cast<D>(value);
  } else {
    volatile D result;
    if constexpr (std::is_floating_point_v<S>) {
      if (mode.flushed) value = flush(value);
      if (integral) value = round_to_integral(value, mode.rounding);
    }
    {
      volatile S in = value;
      const RoundingScope scope(integral ? Rounding::nearest : mode.rounding);
      result = static_cast<D>(in);
    }
    D out = result;
    if (mode.flushed) out = flush(out);
    return mode.saturated ? saturate(out) : out;
  }
}

template <class D, class S>
void convert_value(Lane& l, const Instruction& i) {
  const FloatMode mode = FloatMode::unpack(i.option);
  D result = convert<D>(l.get<S>(i.src[0]), mode, (i.option & kIntegral) != 0);
  if constexpr (std::is_floating_point_v<D>) result = canonical(result);
  l.set(i.dst[0], result);
}

/// cvt.rn.f16x2.f32 d, a, b: a goes to the upper half.
template <class Small>
void convert_pair(Lane& l, const Instruction& i) {
  const auto half = [&](Slot s) {
    return u32{to_small<Small>(static_cast<double>(l.get<float>(s)), Rounding::nearest).bits};
  };
  l.set(i.dst[0], half(i.src[0]) << 16 | half(i.src[1]));
}

template <class D>
Handler convert_from(Type source) {
  return for_type<u8, u16, u32, u64, s8, s16, s32, s64, Half, BFloat16, float, double>(
      source, []<class S>() -> Handler { return convert_value<D, S>; });
}

bool decode_cvt(Opcode& o, Instruction& i) {
  if (o.type() == Type::f16x2 || o.type() == Type::bf16x2) {
    i.execute = o.type() == Type::f16x2 ? convert_pair<Half> : convert_pair<BFloat16>;
    return o.take("rn") && o.type(1) == Type::f32;
  }
  FloatMode mode = take_float_mode(o);
  const int whole = o.take_any("rni", "rmi", "rpi", "rzi");
  if (whole >= 0) mode.rounding = static_cast<Rounding>(whole);
  i.option = mode.pack() | (whole >= 0 ? kIntegral : 0u);
  i.execute = for_type<u8, u16, u32, u64, s8, s16, s32, s64, Half, BFloat16, float, double>(
      o.type(), [&]<class D>() -> Handler { return convert_from<D>(o.type(1)); });
  return i.execute != nullptr;
}

bool decode_lop3(Opcode& o, Instruction& i) { return i.execute = logic3, o.type() == Type::u32; }
bool decode_prmt(Opcode& o, Instruction& i) {
  return i.execute = permute_bytes, o.type() == Type::u32;
}

template <template <class> class Count>
bool decode_count(Opcode& o, Instruction& i) {
  i.execute = for_type<u32, u64>(o.type(), []<class T>() -> Handler { return Count<T>::handler; });
  return i.execute != nullptr;
}
template <class T>
struct Ones {
  static constexpr Handler handler = count_ones<T>;
};
template <class T>
struct LeadingZeros {
  static constexpr Handler handler = leading_zeros<T>;
};
template <class T>
struct Reversed {
  static constexpr Handler handler = reverse_bits<T>;
};

}  // namespace

const DecoderTable& arithmetic_decoders() {
  static const DecoderTable kTable = {
      {"add", decode_sum<Add, false>},
      {"sub", decode_sum<Sub, true>},
      {"addc", [](Opcode& o, Instruction& i) { return decode_add_carry<false>(o, i, kCarryIn); }},
      {"subc", [](Opcode& o, Instruction& i) { return decode_add_carry<true>(o, i, kCarryIn); }},
      {"mul", decode_mul},
      {"mad", decode_mad},
      {"madc", [](Opcode& o, Instruction& i) { return decode_mad_carry(o, i, kCarryIn); }},
      {"fma", decode_float<Fma, 3>},
      {"sad", decode_integer3<Sad>},
      {"div", decode_div},
      {"rem", decode_integer2<Rem>},
      {"sqrt", decode_sqrt},
      {"rcp", decode_reciprocal<reciprocal, true>},
      {"rsqrt", decode_reciprocal<reciprocal_root, false>},
      {"ex2", decode_approximation<std::exp2>},
      {"lg2", decode_approximation<std::log2>},
      {"sin", decode_approximation<std::sin>},
      {"cos", decode_approximation<std::cos>},
      {"tanh", decode_approximation<std::tanh>},
      {"min", decode_extreme<false>},
      {"max", decode_extreme<true>},
      {"neg", decode_sign<Neg>},
      {"abs", decode_sign<Abs>},
      {"copysign", decode_float<CopySign, 2>},
      {"and", decode_bits2<And>},
      {"or", decode_bits2<Or>},
      {"xor", decode_bits2<Xor>},
      {"not", decode_bits1<Not>},
      {"cnot", decode_bits1<CNot>},
      {"shl", decode_shl},
      {"shr", decode_shr},
      {"shf", decode_shf},
      {"popc", decode_count<Ones>},
      {"clz", decode_count<LeadingZeros>},
      {"brev", decode_count<Reversed>},
      {"bfind", decode_bfind},
      {"bfe", decode_bfe},
      {"bfi", decode_bfi},
      {"prmt", decode_prmt},
      {"lop3", decode_lop3},
      {"setp", decode_setp},
      {"selp", decode_selp},
      {"testp", decode_testp},
      {"mov", decode_mov},
      {"cvt", decode_cvt},
  };
  return kTable;
}

}  // namespace standin::ptx
