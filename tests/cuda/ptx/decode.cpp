#include "decode.h"

#include <algorithm>

namespace standin::ptx {

Type type_named(std::string_view name) {
  static const std::unordered_map<std::string_view, Type> kTypes = {
      {"pred", Type::pred}, {"b8", Type::u8},       {"u8", Type::u8},        {"b16", Type::u16},
      {"u16", Type::u16},   {"b32", Type::u32},     {"u32", Type::u32},      {"b64", Type::u64},
      {"u64", Type::u64},   {"s8", Type::s8},       {"s16", Type::s16},      {"s32", Type::s32},
      {"s64", Type::s64},   {"f16", Type::f16},     {"bf16", Type::bf16},    {"f32", Type::f32},
      {"f64", Type::f64},   {"f16x2", Type::f16x2}, {"bf16x2", Type::bf16x2}};
  const auto found = kTypes.find(name);
  return found == kTypes.end() ? Type::none : found->second;
}

std::size_t size_of(Type type) {
  switch (type) {
    case Type::none:
      return 0;
    case Type::pred:
    case Type::u8:
    case Type::s8:
      return 1;
    case Type::u16:
    case Type::s16:
    case Type::f16:
    case Type::bf16:
      return 2;
    case Type::u64:
    case Type::s64:
    case Type::f64:
      return 8;
    default:
      return 4;
  }
}

Opcode::Opcode(std::string_view text) {
  std::size_t dot = text.find('.');
  name_ = text.substr(0, dot);
  while (dot != std::string_view::npos) {
    const std::size_t next = text.find('.', dot + 1);
    std::string_view part = text.substr(dot + 1, next - dot - 1);
    if (const Type type = type_named(part); type != Type::none) {
      types_.push_back(type);
    } else {
      if (part.starts_with(':')) part.remove_prefix(1);
      modifiers_.push_back(part);
    }
    dot = next;
  }
}

bool Opcode::take(std::string_view modifier) {
  const auto found = std::find(modifiers_.begin(), modifiers_.end(), modifier);
  if (found == modifiers_.end()) return false;
  modifiers_.erase(found);
  return true;
}

bool Opcode::all_taken() const { return modifiers_.empty(); }

}  // namespace standin::ptx
