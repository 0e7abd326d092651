#include "warp.h"

#include <algorithm>
#include <bit>

namespace standin::ptx {

namespace {

using Inputs = std::array<WarpInput, 32>;

WarpResult shuffle(WarpOperation operation, const Inputs& in, std::uint32_t mask,
                   std::uint32_t lane) {
  const auto self = static_cast<int>(lane);
  const int operand = static_cast<int>(in[lane].b & 31);
  const int clamp = static_cast<int>(in[lane].c & 31);
  const int segment = static_cast<int>(in[lane].c >> 8 & 31);
  const int last = (self & segment) | (clamp & ~segment);
  const int first = self & segment;
  int source = self;
  bool in_range = true;
  switch (operation) {
    case WarpOperation::shuffle_up:
      source = self - operand;
      in_range = source >= last;  // for up, the clamp is a lower bound
      break;
    case WarpOperation::shuffle_down:
      source = self + operand;
      in_range = source <= last;
      break;
    case WarpOperation::shuffle_xor:
      source = self ^ operand;
      in_range = source <= last;
      break;
    default:
      source = first | (operand & ~segment);
      in_range = source <= last;
      break;
  }
  if (!in_range) source = self;
  if ((mask >> source & 1) == 0) return {static_cast<std::uint64_t>(source), in_range, false};
  return {in[static_cast<std::size_t>(source)].value & 0xffff'ffff, in_range, true};
}

template <class T, class F>
std::uint64_t fold(const Inputs& in, std::uint32_t mask, F combine) {
  T result = static_cast<T>(in[static_cast<std::size_t>(std::countr_zero(mask))].value);
  for (std::uint32_t rest = mask & (mask - 1); rest != 0; rest &= rest - 1) {
    const auto l = static_cast<std::size_t>(std::countr_zero(rest));
    result = combine(result, static_cast<T>(in[l].value));
  }
  return static_cast<std::uint32_t>(result);
}

}  // namespace

WarpResult warp_result(WarpOperation operation, const Inputs& in, std::uint32_t mask,
                       std::uint32_t lane) {
  using u32 = std::uint32_t;
  using s32 = std::int32_t;
  const auto lanes_where = [&](auto condition) {
    u32 lanes = 0;
    for (u32 l = 0; l < 32; ++l) {
      if ((mask >> l & 1) != 0 && condition(in[l])) lanes |= 1u << l;
    }
    return lanes;
  };
  const auto holds = [](const WarpInput& i) { return (i.value & 1) != 0; };
  const auto same = [&](const WarpInput& i) { return i.value == in[lane].value; };
  const auto min = [](auto a, auto b) { return std::min(a, b); };
  const auto max = [](auto a, auto b) { return std::max(a, b); };
  switch (operation) {
    case WarpOperation::barrier:
      return {};
    case WarpOperation::shuffle_idx:
    case WarpOperation::shuffle_up:
    case WarpOperation::shuffle_down:
    case WarpOperation::shuffle_xor:
      return shuffle(operation, in, mask, lane);
    case WarpOperation::ballot:
      return {lanes_where(holds)};
    case WarpOperation::any:
      return {lanes_where(holds) != 0};
    case WarpOperation::all:
      return {lanes_where(holds) == mask};
    case WarpOperation::uniform: {
      const u32 lanes = lanes_where(holds);
      return {lanes == 0 || lanes == mask};
    }
    case WarpOperation::match_any:
      return {lanes_where(same)};
    case WarpOperation::match_all: {
      const bool all = lanes_where(same) == mask;
      return {all ? mask : 0, all};
    }
    case WarpOperation::reduce_add:
      return {fold<u32>(in, mask, [](u32 a, u32 b) { return a + b; })};
    case WarpOperation::reduce_min_u32:
      return {fold<u32>(in, mask, min)};
    case WarpOperation::reduce_max_u32:
      return {fold<u32>(in, mask, max)};
    case WarpOperation::reduce_min_s32:
      return {fold<s32>(in, mask, min)};
    case WarpOperation::reduce_max_s32:
      return {fold<s32>(in, mask, max)};
    case WarpOperation::reduce_and:
      return {fold<u32>(in, mask, [](u32 a, u32 b) { return a & b; })};
    case WarpOperation::reduce_or:
      return {fold<u32>(in, mask, [](u32 a, u32 b) { return a | b; })};
    case WarpOperation::reduce_xor:
      return {fold<u32>(in, mask, [](u32 a, u32 b) { return a ^ b; })};
  }
  return {};
}

}  // namespace standin::ptx
