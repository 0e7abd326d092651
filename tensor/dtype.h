#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "tensor/error.h"

namespace mf {

/// Element types. Values are f32 or f64, ids are i32, masks are u8 (0 or 1).
enum class DType : std::uint8_t {
  f32,  ///< float: values of models as they are trained
  f64,  ///< double: gradient checks, and sums of many elements
  i32,  ///< std::int32_t: ids and positions
  u8    ///< std::uint8_t: masks, 0 or 1
};

/// Bytes of one element.
constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 4;
    case DType::f64:
      return 8;
    case DType::i32:
      return 4;
    case DType::u8:
      return 1;
  }
  return 0;
}

/// "f32", "f64", "i32" or "u8".
constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
  }
  return "?";
}

/// name_of() as a std::string, for messages.
inline std::string describe(DType dtype) { return std::string(name_of(dtype)); }

/// True for f32 and f64: what functions of values take.
constexpr bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }

/// The dtype of a C++ element type.
template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) {
    return DType::f32;
  } else if constexpr (std::is_same_v<T, double>) {
    return DType::f64;
  } else if constexpr (std::is_same_v<T, std::int32_t>) {
    return DType::i32;
  } else {
    static_assert(std::is_same_v<T, std::uint8_t>,
                  "tensors hold float, double, int32_t or uint8_t");
    return DType::u8;
  }
}

/// Calls `fn(T{})` with the floating type behind `dtype`: the one switch of every numeric kernel.
/// Throws Error if it is not floating.
template <class F>
decltype(auto) visit_float(DType dtype, F&& fn) {
  if (dtype == DType::f64) return std::forward<F>(fn)(double{});
  check(dtype == DType::f32, "visit_float: {} is not a floating type; convert with to(DType::f32)",
        dtype);
  return std::forward<F>(fn)(float{});
}

/// Calls `fn(T{})` with the element type behind `dtype`.
template <class F>
decltype(auto) visit_any(DType dtype, F&& fn) {
  switch (dtype) {
    case DType::i32:
      return std::forward<F>(fn)(std::int32_t{});
    case DType::u8:
      return std::forward<F>(fn)(std::uint8_t{});
    case DType::f64:
      return std::forward<F>(fn)(double{});
    case DType::f32:
      break;
  }
  return std::forward<F>(fn)(float{});
}

}  // namespace mf
