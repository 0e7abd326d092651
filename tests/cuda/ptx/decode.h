#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "numeric.h"
#include "program.h"

/// From an instruction's name to the function that executes it.
namespace standin::ptx {

enum class Type : std::uint8_t {
  none,
  pred,
  u8,
  u16,
  u32,
  u64,
  s8,
  s16,
  s32,
  s64,
  f16,
  bf16,
  f32,
  f64,
  f16x2,
  bf16x2
};
/// none if `name` is no type. Untyped bits (.b32) are unsigned integers.
Type type_named(std::string_view name);
std::size_t size_of(Type type);

/// Name, modifiers and types of an instruction. Decoders take what they know; what is left over
/// makes the instruction an unknown one.
class Opcode {
 public:
  explicit Opcode(std::string_view text);

  std::string_view name() const { return name_; }
  Type type(std::size_t n = 0) const { return n < types_.size() ? types_[n] : Type::none; }
  std::size_t type_count() const { return types_.size(); }
  bool take(std::string_view modifier);
  /// The first of `modifiers` that is present.
  template <class... M>
  int take_any(M... modifiers) {
    int n = 0, found = -1;
    (void)((take(modifiers) ? (found = n, true) : (++n, false)) || ...);
    return found;
  }
  bool all_taken() const;

 private:
  std::string_view name_;
  std::vector<std::string_view> modifiers_;
  std::vector<Type> types_;
};

/// Puts handler and options into `i`; false if there is no such form.
using Decoder = bool (*)(Opcode&, Instruction& i);
using DecoderTable = std::unordered_map<std::string_view, Decoder>;
const DecoderTable& arithmetic_decoders();
const DecoderTable& memory_decoders();
const DecoderTable& control_decoders();

/// Calls f.operator()<T>() for the C++ type of `type`, if it is among Ts, and keeps the handler.
template <class T>
constexpr Type kTypeOf = Type::none;
template <>
inline constexpr Type kTypeOf<bool> = Type::pred;
template <>
inline constexpr Type kTypeOf<std::uint8_t> = Type::u8;
template <>
inline constexpr Type kTypeOf<std::uint16_t> = Type::u16;
template <>
inline constexpr Type kTypeOf<std::uint32_t> = Type::u32;
template <>
inline constexpr Type kTypeOf<std::uint64_t> = Type::u64;
template <>
inline constexpr Type kTypeOf<std::int8_t> = Type::s8;
template <>
inline constexpr Type kTypeOf<std::int16_t> = Type::s16;
template <>
inline constexpr Type kTypeOf<std::int32_t> = Type::s32;
template <>
inline constexpr Type kTypeOf<std::int64_t> = Type::s64;
template <>
inline constexpr Type kTypeOf<Half> = Type::f16;
template <>
inline constexpr Type kTypeOf<BFloat16> = Type::bf16;
template <>
inline constexpr Type kTypeOf<float> = Type::f32;
template <>
inline constexpr Type kTypeOf<double> = Type::f64;

template <class... Ts, class F>
Handler for_type(Type type, F f) {
  Handler handler = nullptr;
  ((type == kTypeOf<Ts> ? void(handler = f.template operator()<Ts>()) : void()), ...);
  return handler;
}

}  // namespace standin::ptx
